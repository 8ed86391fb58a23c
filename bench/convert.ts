/**
 * Converting 1 GiB of a TD from private to shared and back by the host's system calls, in calls of 2 MiB as MapGPA makes
 * them: attributes, holes, and faults ahead. Argument: `4k` or `2m`, the size of the file's pages; then `zap` for one
 * epoch for all pages of a call instead of one for each. Prints 4 KiB pages converted per second as JSON.
 */
import { GIB, PAGE_2M, PAGE_4K } from '../src/abi/address.ts';
import { account, tdxHost } from '../test/kvm/backends/tdx/tdx-test-host.ts';
import { GUEST_MEMORY, UserTd } from '../test/kvm/backends/tdx/user-td.ts';

const CHUNK_PAGES = PAGE_2M / PAGE_4K;
const PAGES = GIB / PAGE_4K;
const ROUNDS = 6;

const [size = '4k', tracking = 'page'] = process.argv.slice(2);
const hugePages = size === '2m';
const host = await tdxHost({
  tdx: { hugePages, trackPer: tracking === 'zap' ? 'zap' : 'page' },
  kvm: { hugePages },
});
const before = account(host);
const td = await UserTd.build(host, PAGES);
await td.finalize();

async function eachChunk(work: (gpa: number) => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  for (let gpa = GUEST_MEMORY; gpa < GUEST_MEMORY + GIB; gpa += PAGE_2M) await work(gpa);
  return performance.now() - begin;
}

const toPrivate = (gpa: number) =>
  td.setPrivate(gpa, CHUNK_PAGES, true).then(() => td.preFault(gpa, CHUNK_PAGES));
const toShared = (gpa: number) =>
  td.setPrivate(gpa, CHUNK_PAGES, false).then(() => td.punch(gpa, CHUNK_PAGES));

const rssBefore = process.memoryUsage().rss;
const times: { toShared: number; toPrivate: number }[] = [];
await eachChunk(toPrivate);
const stateMib = (process.memoryUsage().rss - rssBefore) / 2 ** 20;
for (let round = 0; round < ROUNDS; round++) {
  times.push({ toShared: await eachChunk(toShared), toPrivate: await eachChunk(toPrivate) });
}
await td.exit();
if (JSON.stringify(account(host)) !== JSON.stringify(before)) throw new Error('the TD left something behind');

const best = (of: 'toShared' | 'toPrivate'): number => Math.min(...times.map((time) => time[of]));
const [shared, private_] = [best('toShared'), best('toPrivate')];
console.log(
  JSON.stringify({
    pagesPerSecond: (2 * PAGES * 1000) / (shared + private_),
    toSharedPerSecond: (PAGES * 1000) / shared,
    toPrivatePerSecond: (PAGES * 1000) / private_,
    stateMib,
  }),
);
