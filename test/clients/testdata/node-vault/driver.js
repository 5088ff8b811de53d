'use strict';
// Calls node-vault for the tests: one JSON object per line in, one per line out, in the order in which they end. It
// adds nothing to the client and takes nothing from it. It ends with its input.
//
//   in:  {"id": 1, "endpoint": "http://…", "token": "…", "call": "read", "args": ["secret/data/a"]}
//   out: {"id": 1, "result": …}  or  {"id": 1, "error": {"message": "…", "code": "ECONNREFUSED", "status": 403, "body": …}}

const readline = require('readline');
const { createRequire } = require('module');
// The modules lie where npm installed them, this file does not: NODE_VAULT_DIR says where.
const vault = createRequire(process.env.NODE_VAULT_DIR + '/')('node-vault');

const clients = new Map();

function clientOf(endpoint, token, namespace, fresh) {
    if (fresh) return vault({ endpoint, token, namespace });
    const name = JSON.stringify([endpoint, token, namespace]);
    if (!clients.has(name)) clients.set(name, vault({ endpoint, token, namespace }));
    return clients.get(name);
}

async function run({ id, endpoint, token, namespace, fresh, call, args }) {
    try {
        const result = await clientOf(endpoint, token, namespace, fresh)[call](...args);
        return { id, result };
    } catch (e) {
        const { message, code, response } = e || {}; // a schema's refusal can be undefined
        const { statusCode: status, body } = response || {};
        return { id, error: { message: message || String(e), code, status, body } };
    }
}

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
    process.stdout.write(JSON.stringify(await run(JSON.parse(line))) + '\n');
});
