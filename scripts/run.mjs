// node scripts/run.mjs FILE [ARGS]: sets up if needed, then runs FILE with Node 24 and passes its exit code on.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { ROOT } from './node-runtime.mjs';
import { setUp } from './setup.mjs';

const node = setUp();
for (const command of process.argv.slice(2).join('\0').split('\0&&\0')) {
  const [file, ...args] = command.split('\0');
  const { status, signal } = spawnSync(node, [join(ROOT, file), ...args], {
    stdio: 'inherit',
    cwd: process.cwd(),
  });
  if (status !== 0) process.exit(status ?? (signal === 'SIGINT' ? 130 : 1));
}
