// node scripts/run.mjs FILE [ARGS]: sets up if needed, then runs FILE with Node 24 and passes its exit code on.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { ROOT } from './node-runtime.mjs';
import { setUp } from './setup.mjs';

const node = setUp();
const [file, ...args] = process.argv.slice(2);
const { status, signal } = spawnSync(node, [join(ROOT, file), ...args], { stdio: 'inherit' });
process.exitCode = status ?? (signal === 'SIGINT' ? 130 : 1);
