package main

import (
	"fmt"
	"os"
)

// keepAwake asks the kernel not to let idle processors sleep (PM QoS, as cyclictest does), until the func that it returns is
// called. One request at a time finds every processor on its way asleep, and what it then takes to wake one is the machine's, not
// that of what is measured; in a virtual machine it is tens of microseconds. It takes root.
func keepAwake() (letSleep func(), err error) {
	const path = "/dev/cpu_dma_latency"
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("keep the processors awake: %w", err)
	}
	if _, err := f.Write(make([]byte, 4)); err != nil { // 0 µs, for as long as the file is open
		f.Close()
		return nil, fmt.Errorf("keep the processors awake: %w", err)
	}
	return func() { f.Close() }, nil
}
