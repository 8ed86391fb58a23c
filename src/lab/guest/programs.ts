/** Guest programs to start from. */
import { hex } from '../../abi/address.ts';
import { TDG } from '../../abi/leaves.ts';
import { R8, R9, RAX, RCX, RDX } from '../../abi/registers.ts';
import { formatStatus } from '../../abi/status.ts';
import { GuestException } from './flow.ts';
import type { GuestProgram } from './program.ts';

const TEXT = new TextEncoder();
const GREETING = 0x1000;
const HEAP = 0x20_0000;
const REPORT = 0x3000;
const REPORT_DATA = 0x3400;
const SHARED_COUNTER = 0x4000;

const hello: GuestProgram = {
  name: 'hello',
  summary: 'reads a measured page, accepts memory, meets a #VE, makes a report',
  pages: [
    { gpa: GREETING, contents: TEXT.encode('measured before launch') },
    { gpa: REPORT, contents: new Uint8Array(), measured: false },
  ],
  *run(cpu, say) {
    const info = yield* cpu.tdcall(TDG.vpInfo);
    say(`GPAW ${info[RCX]}, attributes ${hex(info[RDX]!)}, vCPU ${info[R9]} of ${info[R8]! & 0xffffn}`);
    const greeting = yield* cpu.read(GREETING, 22);
    say(`private memory says: ${new TextDecoder().decode(greeting)}`);
    const accepted = yield* cpu.accept(HEAP, 4);
    say(`4 pages at ${hex(HEAP)} accepted: ${formatStatus(accepted)}`);
    yield* cpu.write(HEAP, TEXT.encode('only the TD can read this'));
    try {
      yield* cpu.hlt();
    } catch (exception) {
      if (!(exception instanceof GuestException)) throw exception;
      const ve = yield* cpu.tdcall(TDG.vpVeinfoGet);
      say(`HLT came back as ${exception.message}; VE information: exit reason ${ve[RCX]}`);
    }
    const report = yield* cpu.tdcall(TDG.mrReport, { rcx: BigInt(REPORT), rdx: BigInt(REPORT_DATA) });
    const mrtd = yield* cpu.read(REPORT + 512 + 16, 48);
    say(`report: ${formatStatus(report[RAX]!)}, MRTD ${Buffer.from(mrtd).toString('hex')}`);
  },
};

const counter: GuestProgram = {
  name: 'counter',
  summary: 'two vCPUs take turns on one page of private memory',
  vcpus: 2,
  pages: [{ gpa: SHARED_COUNTER, contents: new Uint8Array() }],
  *run(cpu, say) {
    for (let round = 0; round < 3; round++) {
      const [value = 0] = yield* cpu.read(SHARED_COUNTER, 1);
      yield* cpu.write(SHARED_COUNTER, Uint8Array.of(value + 1));
      say(`counted to ${value + 1}`);
      yield* cpu.interrupt();
    }
  },
};

/** By name. @public */
export const GUEST_PROGRAMS: ReadonlyMap<string, GuestProgram> = new Map(
  [hello, counter].map((program) => [program.name, program]),
);
