// Package cacheclients runs clients that were written for Redis, unchanged, against caches of three real nodes: the Go module
// github.com/redis/go-redis/v9, redis-cli, the npm packages ioredis and redis, and the session stores of two web frameworks:
// express-session with connect-redis, and koa-generic-session with koa-redis.
//
// The npm packages need node and npm, redis-cli the Debian package redis-tools. Where they are missing their part is skipped with
// the reason; with LOCUM_NO_SKIP or CI set it fails instead. npm installs by testdata/node/package-lock.json into the user's cache
// directory, once.
package cacheclients
