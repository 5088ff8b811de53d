package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) snapshotSaveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "save FILE",
		Short: "Save the whole state, encrypted as it is stored",
		Long: `Saves the whole state, encrypted as it is stored: who restores it needs the cluster's seal. The file appears only when
it is whole. "-" writes to stdout.`,
		Example: "  locum operator raft snapshot save locum.snap",
		Args:    cobra.ExactArgs(1),
	}
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		if args[0] == "-" {
			return c.Raft().Snapshot(cmd.Context(), a.out)
		}
		progress := a.progress()
		size, err := saveWhole(args[0], func(w io.Writer) error {
			return c.Raft().Snapshot(cmd.Context(), &counted{w: w, progress: progress})
		})
		progress("")
		if err != nil {
			return err
		}
		a.say("Saved %d bytes to %s.", size, args[0])
		return nil
	})
}

// counted shows how much has been written, once for each MiB.
type counted struct {
	w        io.Writer
	n, shown int64
	progress func(string)
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	if c.n += int64(n); c.n>>20 > c.shown {
		c.shown = c.n >> 20
		c.progress(fmt.Sprintf("%d MiB saved", c.shown))
	}
	return n, err
}

// saveWhole writes a file that appears under its name only once it is complete and on disk.
func saveWhole(name string, write func(io.Writer) error) (size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*") // mode 0600
	if err != nil {
		return 0, fmt.Errorf("saving: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		size, err = f.Seek(0, io.SeekCurrent)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	if size == 0 {
		return 0, errors.New("the node sent an empty snapshot")
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return 0, fmt.Errorf("saving: %w", err)
	}
	return size, nil
}

func (a *app) snapshotRestoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Replace the whole state by a snapshot",
		Long: `Replaces the whole state of the cluster by a snapshot. The term is never lowered. A snapshot of another cluster is
refused unless -force is given.`,
		Example: "  locum operator raft snapshot restore locum.snap",
		Args:    cobra.ExactArgs(1),
	}
	force := cmd.Flags().Bool("force", false, "also if the snapshot is of another cluster")
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		f, err := os.Open(args[0])
		if err != nil {
			return fmt.Errorf("restoring: %w", err)
		}
		defer f.Close()
		if err := c.Raft().Restore(cmd.Context(), f, *force); err != nil {
			return err
		}
		a.say("The state is that of %s.", args[0])
		return nil
	})
}
