package stores

import (
	"context"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/file"
)

func openFile(_ context.Context, s config.Storage, _ physical.Host) (physical.Stores, error) {
	store, err := file.Open(file.Config{Path: s.File.Path})
	if err != nil {
		return physical.Stores{}, err
	}
	return physical.Stores{Storage: store}, nil
}
