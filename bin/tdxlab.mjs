#!/usr/bin/env node
// The command `tdxlab`: starts the command line with a Node that runs TypeScript directly.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { findNode, ROOT } from '../scripts/node-runtime.mjs';

const node = findNode();
const main = join(ROOT, 'src', 'cli', 'main.ts');
if (node === undefined) {
  console.error('tdxlab: not set up yet; run `npm start` once in the checkout');
  process.exitCode = 2;
} else if (node === process.execPath) {
  await import(main);
} else {
  const { status, signal } = spawnSync(node, [main, ...process.argv.slice(2)], { stdio: 'inherit' });
  process.exitCode = status ?? (signal === 'SIGINT' ? 130 : 1);
}
