#!/usr/bin/env node
// The command `tdxlab`: starts the command line with a Node that runs TypeScript directly, and keeps what Node makes
// of the sources in a cache, which halves the start-up.
import { spawnSync } from 'node:child_process';
import * as nodeModule from 'node:module';
import { join } from 'node:path';
import { findNode, ROOT } from '../scripts/node-runtime.mjs';

const node = findNode();
const main = join(ROOT, 'src', 'cli', 'main.ts');
const cache = join(ROOT, 'node_modules', '.cache', 'tdxlab');
if (node === undefined) {
  console.error('tdxlab: not set up yet; run `npm start` once in the checkout');
  process.exitCode = 2;
} else if (node === process.execPath) {
  nodeModule.enableCompileCache(cache);
  await import(main);
} else {
  const env = { ...process.env, NODE_COMPILE_CACHE: cache };
  const { status, signal } = spawnSync(node, [main, ...process.argv.slice(2)], { stdio: 'inherit', env });
  process.exitCode = status ?? (signal === 'SIGINT' ? 130 : 1);
}
