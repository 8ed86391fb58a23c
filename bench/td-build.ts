/**
 * Builds a TD with 2 MiB of measured pages (512 MEM.PAGE.ADD, 8,192 MR.EXTEND) and, in the same run, does the bare
 * SHA-384 over the same bytes in the same chunks. Prints both times as JSON.
 */
import { createHash } from 'node:crypto';
import { createHost } from '../src/lab/host.ts';
import { LabTd } from '../src/lab/td/lab-td.ts';
import { server } from './server.ts';

const PAGES = 512;
const PAGE = 4096;
const EXTEND = 256;
const RECORD = 128;

const { kernel } = createHost(server(1, 1));
await kernel.boot();
const contents = Uint8Array.from({ length: PAGE }, (_, i) => (i * 31) & 0xff);
const pages = Array.from({ length: PAGES }, (_, i) => ({ gpa: (i + 1) * PAGE, contents }));

function buildMs(measured: boolean): number {
  const begin = performance.now();
  const td = LabTd.build(kernel, { pages: pages.map((page) => ({ ...page, measured })) });
  const ms = performance.now() - begin;
  td.destroy();
  return ms;
}

/** One record for every page, and for every 256 bytes a record and the bytes. */
function hashMs(): number {
  const record = new Uint8Array(RECORD);
  const begin = performance.now();
  const hash = createHash('sha384');
  for (let page = 0; page < PAGES; page++) {
    hash.update(record);
    for (let at = 0; at < PAGE; at += EXTEND) {
      hash.update(record);
      hash.update(contents.subarray(at, at + EXTEND));
    }
  }
  hash.digest();
  return performance.now() - begin;
}

/** Enough that the compiler has seen all of it; the two take turns, so that both meet the same machine. */
const ROUNDS = 40;
const rounds = Array.from({ length: ROUNDS }, () => ({ build: buildMs(true), hash: hashMs() }));
console.log(
  JSON.stringify({
    buildMs: Math.min(...rounds.map(({ build }) => build)),
    hashMs: Math.min(...rounds.map(({ hash }) => hash)),
  }),
);
