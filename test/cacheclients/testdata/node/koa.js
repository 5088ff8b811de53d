'use strict';
// A web server with sessions: koa, koa-generic-session, koa-redis, as their manuals have it. It prints its port.

const { createRequire } = require('module');
const from = createRequire(process.env.NODE_MODULES_DIR + '/');
const Koa = from('koa');
const session = from('koa-generic-session');
const redisStore = from('koa-redis');

const [port] = process.argv.slice(2);
const app = new Koa();
app.keys = ['for tests'];
app.use(session({ store: redisStore({ host: '127.0.0.1', port: Number(port) }), prefix: 'koa:' }));
app.use(async (ctx) => {
    const [, what, who] = ctx.path.split('/');
    if (what === 'login') { ctx.session.who = who; ctx.body = 'in'; }
    if (what === 'who') { ctx.session.n = (ctx.session.n ?? 0) + 1; ctx.body = String(ctx.session.who ?? 'nobody'); }
    if (what === 'logout') { ctx.session = null; ctx.body = 'out'; }
});
const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => process.exit(0)).resume(); // it ends with its input
