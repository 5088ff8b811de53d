package s3

// GathersCommits says that commits that wait share swaps by themselves: see physical.Gatherer.
func (s *Store) GathersCommits() {}
