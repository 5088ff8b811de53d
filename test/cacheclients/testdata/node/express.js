'use strict';
// A web server with sessions: express, express-session, connect-redis over redis, as their manuals have it. It prints its port.

const { createRequire } = require('module');
const from = createRequire(process.env.NODE_MODULES_DIR + '/');
const express = from('express');
const session = from('express-session');
const { RedisStore } = from('connect-redis');
const { createClient } = from('redis');

async function main([port]) {
    const client = createClient({ socket: { host: '127.0.0.1', port: Number(port) } });
    client.on('error', () => {}); // it connects again by itself
    await client.connect();
    const app = express();
    app.use(session({ store: new RedisStore({ client, prefix: 'express:' }), secret: 'for tests', resave: false, saveUninitialized: false }));
    app.get('/login/:who', (req, res) => { req.session.who = req.params.who; req.session.n = 0; res.send('in'); });
    app.get('/who', (req, res) => { req.session.n = (req.session.n ?? 0) + 1; res.send(String(req.session.who ?? 'nobody')); });
    app.get('/logout', (req, res) => req.session.destroy(() => res.send('out')));
    const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port));
}

process.stdin.on('end', () => process.exit(0)).resume(); // it ends with its input
main(process.argv.slice(2)).catch((e) => { console.error(e); process.exit(1); });
