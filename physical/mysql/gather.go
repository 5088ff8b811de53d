package mysql

// GathersCommits says that commits that wait share statements by themselves: see physical.Gatherer.
func (s *Store) GathersCommits() {}
