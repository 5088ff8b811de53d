package main

import (
	"os/exec"
	"runtime"
)

// spawner starts processes from one thread that lives until close. The kernel ends a child with the parent-death signal when
// the *thread* that started it ends, not the process: on any other thread of Go's it could come too early.
type spawner struct {
	jobs chan spawnJob
	done chan struct{}
}

type spawnJob struct {
	cmd    *exec.Cmd
	result chan error
}

func newSpawner() *spawner {
	s := &spawner{jobs: make(chan spawnJob), done: make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		defer close(s.done)
		for job := range s.jobs {
			job.result <- job.cmd.Start()
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	job := spawnJob{cmd, make(chan error, 1)}
	s.jobs <- job
	return <-job.result
}

// close ends the thread. Every child must have ended.
func (s *spawner) close() {
	close(s.jobs)
	<-s.done
}
