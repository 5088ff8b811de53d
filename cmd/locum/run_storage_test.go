package main

import "testing"

// -storage of spaces alone, as an empty variable in quotes gives it, is as good as none: as LOCUM_STORAGE is read.
func TestStorageOfSpaces(t *testing.T) {
	a := &app{env: func(string) (string, bool) { return "", false }}
	r := &runner{app: a, flags: &runFlags{storage: " ", haStorage: "\t"}, dir: t.TempDir()}
	c, err := r.storage()
	if err != nil || c.Storage.Type != "raft" {
		t.Errorf("%+v, %v", c, err)
	}
}
