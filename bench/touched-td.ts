/** A TD with 64 GiB of memory of which the guest touches 1 %: what it takes of the host, and of this process, as JSON. */
import { GIB, PAGE_2M, PAGE_4K } from '../src/abi/address.ts';
import { startProcess } from '../src/kernel/process/process.ts';
import { asTdGuest } from '../src/lab/guest/td-kernel.ts';
import { setGuestScript } from '../src/lab/kvm-host.ts';
import { startVmHost } from '../src/lab/vm/vm-host.ts';
import { sampleImage } from '../src/vmm/sample-image.ts';
import { buildTd } from '../src/vmm/vm/build-td.ts';
import { POWER_OFF, POWER_PORT, POWER_SWITCH } from '../src/vmm/vm/devices.ts';
import { runVcpu } from '../src/vmm/vm/run-vcpu.ts';
import { server } from './server.ts';

const MEMORY = 64 * GIB;
/** One page in a hundred, in ranges of 2 MiB: as programs use memory. */
const TOUCHED = Math.floor(MEMORY / PAGE_4K / 100);
const PAGES_PER_RANGE = PAGE_2M / PAGE_4K;
const RANGES = Math.ceil(TOUCHED / PAGES_PER_RANGE);
const STRIDE = 100 * PAGE_2M;
const FIRST = 4 * GIB;

const host = await startVmHost('tdx', server(1, 1));
const { machine, kernel } = host;
const used = (): number => kernel.allocator.accounts().reduce((sum, node) => sum + node.used, 0);
const pagesBefore = used();
const framesBefore = machine.memory.framesInUse;
globalThis.gc?.();
const rssBefore = process.memoryUsage().rss;

const task = startProcess(kernel);
const begin = performance.now();
const { vm } = await buildTd(task, sampleImage(), { memoryBytes: MEMORY });
const built = performance.now();
const pagesBuilt = used() - pagesBefore;
const byte = Uint8Array.of(1);
const script = asTdGuest(function* (cpu) {
  for (let range = 0; range < RANGES; range++) {
    for (let page = 0; page < PAGES_PER_RANGE; page++) {
      yield* cpu.write(FIRST + ((range * STRIDE) % (MEMORY - 4 * GIB)) + page * PAGE_4K, byte);
    }
  }
  yield* cpu.out(POWER_PORT, POWER_OFF, 2);
});
setGuestScript(host.guests, task, vm.vcpus[0]!.fd, script);
const { kind, text } = await runVcpu(vm, vm.vcpus[0]!, { ports: [POWER_SWITCH] });
if (kind !== 'power-off') throw new Error(text);
const ran = performance.now();
globalThis.gc?.();
const result = {
  touchedPages: RANGES * PAGES_PER_RANGE,
  pagesBuilt,
  pagesTaken: used() - pagesBefore,
  stateMib: (process.memoryUsage().rss - rssBefore) / 2 ** 20,
  framesMib: ((machine.memory.framesInUse - framesBefore) * PAGE_4K) / 2 ** 20,
  buildMs: built - begin,
  touchPerSecond: (RANGES * PAGES_PER_RANGE * 1000) / (ran - built),
};
await vm.close();
await task.exit();
const end = performance.now();
if (used() !== pagesBefore) throw new Error('pages were not given back');
console.log(JSON.stringify({ ...result, destroyMs: end - ran }));
