package config

import "fmt"

// RateLimit bounds what one client address may ask for without a token: init, unseal, join and the like. Status paths are not
// bounded; neither is what comes with a token.
type RateLimit struct {
	// RequestsPerSecond is how many requests each address has in a second, on the average; beyond that the answer is 429. 0 for
	// no limit. Default: 50.
	RequestsPerSecond int `hcl:"requests_per_second"`

	// Burst is how many it has at once. Default: 200.
	Burst int `hcl:"burst"`
}

func (c *checker) rateLimit() {
	if r := c.RateLimit.RequestsPerSecond; r < 0 || r > 1_000_000 {
		c.fault("rate_limit.requests_per_second", fmt.Sprintf("%d is out of range", r), "write a number from 1 to 1000000, or 0 for no limit")
	}
	if b := c.RateLimit.Burst; b < 1 || b > 1_000_000 {
		c.fault("rate_limit.burst", fmt.Sprintf("%d is out of range", b), "write a number from 1 to 1000000")
	}
}
