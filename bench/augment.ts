/** MEM.PAGE.AUG and MEM.PAGE.ACCEPT of 1 GiB in 4 KiB pages. Prints pages per second and memory as JSON. */
import { TDG } from '../src/abi/leaves.ts';
import { RAX } from '../src/abi/registers.ts';
import { ScriptedGuests } from '../src/lab/guest/scripted-guests.ts';
import { createHost } from '../src/lab/host.ts';
import { LabTd } from '../src/lab/td/lab-td.ts';
import type { TdxModule } from '../src/module/tdx-module.ts';
import { server } from './server.ts';

const PAGE = 4096;
const PAGES = 262_144;
const START = 0x4000_0000;

const { machine, kernel } = createHost(server(1, 1));
await kernel.boot();
const guests = new ScriptedGuests();
(machine.seam.module as TdxModule).guestRunner = guests;
const td = LabTd.build(kernel);
const [vcpu] = td.vcpus;
if (vcpu === undefined) throw new Error('the TD has no vCPU');
guests.set(vcpu.tdvpr, function* (cpu) {
  for (let i = 0; i < PAGES; i++) {
    const out = yield* cpu.tdcall(TDG.memPageAccept, { rcx: BigInt(START + i * PAGE) });
    if (out[RAX] !== 0n) throw new Error(`ACCEPT of page ${i} failed`);
  }
});

const rssBefore = process.memoryUsage().rss;
const framesBefore = machine.memory.framesInUse;
const begin = performance.now();
for (let i = 0; i < PAGES; i++) td.augment(START + i * PAGE);
const middle = performance.now();
const cpu = td.cpuOf(vcpu);
cpu.lp.regs.q.fill(0n);
td.enter(vcpu, cpu);
const end = performance.now();
if (!guests.isDone(vcpu.tdvpr)) throw new Error('the guest did not accept every page');
const frames = machine.memory.framesInUse - framesBefore;
console.log(
  JSON.stringify({
    augPerSecond: (PAGES * 1000) / (middle - begin),
    acceptPerSecond: (PAGES * 1000) / (end - middle),
    bothPerSecond: (PAGES * 1000) / (end - begin),
    stateMib: (process.memoryUsage().rss - rssBefore) / 2 ** 20,
    framesMib: (frames * PAGE) / 2 ** 20,
  }),
);
