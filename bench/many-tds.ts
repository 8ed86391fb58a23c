/** Creates, enters and tears down TDs with 4 vCPUs each: `many-tds.ts COUNT`. Prints time per TD as JSON. */
import { ScriptedGuests } from '../src/lab/guest/scripted-guests.ts';
import { createHost } from '../src/lab/host.ts';
import { LabTd } from '../src/lab/td/lab-td.ts';
import type { TdxModule } from '../src/module/tdx-module.ts';
import { server } from './server.ts';

const count = Number(process.argv[2] ?? 500);
const { machine, kernel } = createHost({ ...server(1, 1), keyIds: { mktme: 63, tdx: 600 } });
await kernel.boot();
const guests = new ScriptedGuests();
(machine.seam.module as TdxModule).guestRunner = guests;
const before = JSON.stringify(kernel.allocator.accounts());

const begin = performance.now();
const tds = Array.from({ length: count }, () => LabTd.build(kernel, { vcpus: 4 }));
for (const td of tds) {
  for (const vcpu of td.vcpus) {
    guests.set(vcpu.tdvpr, function* (cpu) {
      yield* cpu.vmcall(0x10000n);
    });
    const cpu = td.cpuOf(vcpu);
    cpu.lp.regs.q.fill(0n);
    td.enter(vcpu, cpu);
  }
}
for (const td of tds) td.destroy();
const ms = performance.now() - begin;
kernel.allocator.audit();
if (JSON.stringify(kernel.allocator.accounts()) !== before) throw new Error('pages were not given back');
if (kernel.keyIds.current !== 0) throw new Error('KeyIDs were not given back');
console.log(JSON.stringify({ ms, perTdMs: ms / count }));
