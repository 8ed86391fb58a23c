/** Brings one large host up and prints what it took as JSON: `bring-up.ts TIB NODES`. */
import { createHost } from '../src/lab/host.ts';
import { server } from './server.ts';

const [tib = '2', nodes = '2'] = process.argv.slice(2);
const begin = performance.now();
const { machine, kernel } = createHost(server(Number(tib), Number(nodes)));
await kernel.boot();
const ms = performance.now() - begin;
if (kernel.state !== 'initialized') throw new Error(kernel.log.entries.at(-1)?.text);
const gib = kernel.tdmrs.reduce((sum, tdmr) => sum + (tdmr.end - tdmr.start) / 2 ** 30, 0);
console.log(
  JSON.stringify({
    ms,
    maxRssMib: process.resourceUsage().maxRSS / 1024,
    // TDMR.INIT covers 4 MiB a call.
    tdmrInitCalls: gib * 256,
    virtualMs: machine.clock.nowNs / 1e6,
  }),
);
