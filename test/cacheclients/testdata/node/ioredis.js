'use strict';
// Drives ioredis against two nodes of a cache: PORT OTHER_PORT. Exits with 0 if everything was as with Redis.

const assert = require('node:assert/strict');
const { createRequire } = require('module');
const Redis = createRequire(process.env.NODE_MODULES_DIR + '/')('ioredis');

async function main([port, otherPort]) {
    const redis = new Redis({ port: Number(port), host: '127.0.0.1' });
    const other = new Redis({ port: Number(otherPort), host: '127.0.0.1' });
    assert.equal(await redis.set('io:a', 'é\u0000x', 'EX', 100), 'OK');
    assert.equal(await redis.get('io:a'), 'é\u0000x');
    const ttl = await redis.ttl('io:a');
    assert.ok(ttl > 90 && ttl <= 100, `ttl ${ttl}`);
    assert.equal(await redis.set('io:a', 'y', 'NX'), null);
    assert.equal(await redis.incrby('io:n', 7), 7);
    assert.deepEqual(await redis.mget('io:a', 'io:none'), ['é\u0000x', null]);

    // A pipeline, and a transaction with and without a conflict.
    const results = await redis.pipeline().set('io:p', '1').incr('io:p').get('io:p').get('io:none').exec();
    assert.deepEqual(results, [[null, 'OK'], [null, 2], [null, '2'], [null, null]]);
    assert.deepEqual(await redis.multi().incr('io:p').get('io:p').exec(), [[null, 3], [null, '3']]);
    await redis.watch('io:p');
    await other.set('io:p', 'theirs');
    assert.equal(await redis.multi().set('io:p', 'mine').exec(), null);
    await assert.rejects(redis.incr('io:p'), /ERR value is not an integer or out of range/);

    // Messages reach subscribers on another node, in order.
    const subscriber = new Redis({ port: Number(otherPort), host: '127.0.0.1' });
    await subscriber.subscribe('io:news', 'io:more');
    const heard = [];
    const all = new Promise((resolve) => subscriber.on('message', (channel, text) => {
        heard.push(`${channel}=${text}`);
        if (heard.length === 3) resolve();
    }));
    await redis.publish('io:news', 'one');
    await redis.publish('io:more', 'two');
    await redis.publish('io:news', 'three');
    await all;
    assert.deepEqual(heard, ['io:news=one', 'io:more=two', 'io:news=three']);

    // SCAN finds every key once or more.
    await redis.mset(...Array.from({ length: 100 }, (_, i) => [`io:scan:${i}`, 'x']).flat());
    const seen = new Set();
    for await (const keys of redis.scanStream({ match: 'io:scan:*', count: 7 })) keys.forEach((k) => seen.add(k));
    assert.equal(seen.size, 100);
    assert.equal(await redis.call('LOCUM.ACK', 'leader'), 'OK');
    assert.equal(await redis.set('io:weak', '1'), 'OK');
    assert.equal(await redis.wait(1, 1000), 1);
    for (const client of [redis, other, subscriber]) client.disconnect();
}

main(process.argv.slice(2)).catch((e) => { console.error(e); process.exit(1); });
