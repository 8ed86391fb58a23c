// Set-up in one step, run by every npm script: dependencies by the lock file, and Node 24 where the machine's is
// older. Does nothing when all is there. Plain JavaScript on purpose: it runs on Node 20 before anything else.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { findNode, ROOT, RUNTIME_PACKAGE, RUNTIME_VERSION } from './node-runtime.mjs';

const STAMP = join(ROOT, 'node_modules', '.tdxlab-setup');

function npm(...args) {
  const { status, error } = spawnSync('npm', args, {
    cwd: ROOT,
    stdio: ['ignore', 2, 2],
    shell: process.platform === 'win32',
  });
  if (status === 0) return;
  console.error(`tdxlab: set-up failed: npm ${args.join(' ')}${error ? `: ${error.message}` : ''}`);
  process.exit(1);
}

export function setUp() {
  const lock = createHash('sha256')
    .update(readFileSync(join(ROOT, 'package-lock.json')))
    .digest('hex');
  if (!existsSync(STAMP) || readFileSync(STAMP, 'utf8') !== lock) {
    console.error('tdxlab: installing dependencies');
    npm('ci', '--no-audit', '--no-fund');
    writeFileSync(STAMP, lock);
  }
  if (findNode() === undefined) {
    console.error(`tdxlab: this Node is ${process.version}; installing ${RUNTIME_VERSION} into .runtime/`);
    const runtime = join(ROOT, '.runtime');
    mkdirSync(runtime, { recursive: true });
    npm(
      'install',
      '--prefix',
      runtime,
      '--no-save',
      '--no-audit',
      '--no-fund',
      `${RUNTIME_PACKAGE}@${RUNTIME_VERSION}`,
    );
  }
  const node = findNode();
  if (node === undefined) {
    console.error(`tdxlab: no Node 24 for ${process.platform} ${process.arch}; install one and run again`);
    process.exit(1);
  }
  return node;
}
