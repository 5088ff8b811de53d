// Package clients runs clients that were written for Vault, unchanged, against real Locum clusters: the Go modules
// github.com/hashicorp/vault/api and github.com/openbao/openbao/api/v2, and the npm package node-vault.
//
// Each client is wrapped in an adapter that calls its own methods (Sys().Health, KVv2().Put, …) and gives what came back in
// one shape, so that one list of expectations holds for all. The list is run
//
//	against the active node and through a standby  ×  with forwarding and with redirection
//
// and then under the changes that clients live through: the active node is stepped down by each client, and killed.
// What a client does by itself (follow one redirect, try again after a 5xx) it does here with its own defaults.
//
// node-vault needs node and npm. Where they are missing its part is skipped with the reason; with LOCUM_NO_SKIP or CI
// set it fails instead. Its lock file is testdata/node-vault/package-lock.json; npm installs by it into the user's
// cache directory, once.
package clients
