/**
 * Records a sequence from its inputs (test/vectors/README.md): every line is executed on the model, and what the model
 * answers is added to it.
 */
import { createHash } from 'node:crypto';
import { hex } from '../../src/abi/address.ts';
import { RAX } from '../../src/abi/registers.ts';
import { loadRegisters } from '../../src/lab/replay/mismatch.ts';
import { Replay } from '../../src/lab/replay/replay.ts';
import { exitOf, type GuestState, stateOf } from '../../src/lab/replay/td-guest-port.ts';
import {
  type ExpectLine,
  type GuestLine,
  type PlatformLine,
  parseVectorLine,
  type RegisterMap,
  type RepeatLine,
  type SeamcallLine,
  type VectorLine,
} from '../../src/lab/replay/vector-lines.ts';
import type { LogicalProcessor } from '../../src/machine/lp.ts';
import { deliverExit } from '../../src/module/guest/dispatcher.ts';
import { isIntercepted } from '../../src/module/guest/intercepts.ts';
import type { RunningVcpu } from '../../src/module/guest/running-vcpu.ts';
import { VMCS } from '../../src/module/td/vmcs.ts';
import type { TdxModule } from '../../src/module/tdx-module.ts';
import { registersOf } from './record-sequence.ts';

/** A line of a sequence as JSON has it. */
export type JsonLine = Readonly<Record<string, unknown>> & { readonly t: string };

/** What of each kind of line the model answers. */
const ANSWERS: Readonly<Record<string, readonly string[]>> = {
  seamcall: ['out', 'rng', 'entered', 'guest', 'rip', 'inj'],
  seamcall_repeat: ['out_first', 'out_last', 'status_counts'],
  guest: ['out', 'result', 'rip_out', 'inj', 'host_out', 'state'],
};
const VALID = 0x8000_0000;
const ERROR_CODE_DELIVERED = 1 << 11;

/** The line without what the model answers. The contents of an `expect` stay: they say how they are to be written. */
export function inputOf(line: JsonLine): JsonLine {
  const answers = ANSWERS[line.t] ?? [];
  return Object.fromEntries(Object.entries(line).filter(([key]) => !answers.includes(key))) as JsonLine;
}

export class VectorRecorder {
  readonly #replay: Replay;
  readonly #lines: JsonLine[];

  /** Begins with a platform line. */
  constructor(platform: JsonLine) {
    this.#replay = new Replay(parse(platform) as PlatformLine);
    this.#lines = [platform];
  }

  /** The sequence so far, as a file has it. */
  get text(): string {
    return `${this.#lines.map((line) => JSON.stringify(line)).join('\n')}\n`;
  }

  get module(): TdxModule {
    return this.#replay.machine.seam.module as TdxModule;
  }

  /** Executes an input. Returns it as recorded, with the answers. Throws when the model does not support it. */
  record(input: JsonLine): JsonLine {
    const line = { ...input, ...this.#answer(parse(input)) };
    this.#lines.push(line);
    return line;
  }

  #answer(line: VectorLine): object {
    switch (line.t) {
      case 'seamcall':
        return this.#seamcall(line);
      case 'seamcall_repeat':
        return this.#repeat(line);
      case 'guest':
        return this.#guest(line);
      case 'expect':
        return this.#expect(line);
      default: {
        this.#replay.execute(line, this.#lines.length + 1);
        const [refused] = this.#replay.result().mismatches;
        if (refused !== undefined) throw new Error(`${refused.what}: ${refused.actual}`);
        return {};
      }
    }
  }

  #call(index: number, input: RegisterMap): LogicalProcessor {
    if (this.module.running[index] !== undefined) throw new Error(`LP ${index} runs a guest: it cannot call`);
    const lp = this.#replay.machine.lps[index]!;
    loadRegisters(lp.regs, input);
    this.module.seamcall(lp);
    return lp;
  }

  #seamcall(line: SeamcallLine): object {
    const { entropy } = this.#replay.machine;
    const before = entropy.drawn;
    const lp = this.#call(line.lp, line.in);
    const drawn = entropy.drawn - before;
    const random = drawn === 0 ? {} : { rng: drawn };
    const vcpu = this.module.running[line.lp];
    if (vcpu === undefined) return { ...random, out: registersOf(lp) };
    const rip = hex(vcpu.vmcs.read(VMCS.GUEST_RIP));
    return { ...random, entered: true, guest: registersOf(vcpu), rip, ...injected(vcpu) };
  }

  #repeat(line: RepeatLine): object {
    const input: Record<string, bigint> = { ...line.in };
    const counts = new Map<string, number>();
    let first: object = {};
    let last: object = {};
    for (let i = 0; i < line.count; i++) {
      const lp = this.#call(line.lp, input);
      const status = hex(lp.regs.q[RAX]!);
      counts.set(status, (counts.get(status) ?? 0) + 1);
      last = registersOf(lp);
      if (i === 0) first = last;
      for (const [name, step] of Object.entries(line.step)) {
        input[name] = BigInt.asUintN(64, (input[name] ?? 0n) + step);
      }
    }
    return { out_first: first, out_last: last, status_counts: Object.fromEntries(counts) };
  }

  #guest(line: GuestLine): object {
    const vcpu = this.module.running[line.lp];
    if (vcpu === undefined) throw new Error(`no guest runs on LP ${line.lp}`);
    loadRegisters(vcpu.regs, line.in);
    const exit = exitOf(line);
    if (!isIntercepted(vcpu, exit)) return { result: 'native' };
    vcpu.vmcs.write(VMCS.GUEST_RIP, line.rip);
    const before = stateOf(vcpu);
    const result = deliverExit(vcpu, exit);
    if (result === 'exited') return { result, host_out: registersOf(this.#replay.machine.lps[line.lp]!) };
    const rip_out = hex(vcpu.vmcs.read(VMCS.GUEST_RIP));
    const state = changes(before, stateOf(vcpu));
    return { out: registersOf(vcpu), result, rip_out, ...injected(vcpu), ...state };
  }

  #expect({ pa, len, hkid, sha384 }: ExpectLine): object {
    const bytes = Buffer.from(this.#replay.machine.memory.read(Number(pa), len, hkid));
    if (sha384 !== undefined) return { sha384: createHash('sha384').update(bytes).digest('hex') };
    return { hex: bytes.toString('hex').replace(/(00)+$/, '') };
  }
}

function parse(line: JsonLine): VectorLine {
  return parseVectorLine(JSON.stringify({ ...PLACEHOLDERS[line.t], ...line }), 1);
}

/** Answers that a line must have to be read. */
const PLACEHOLDERS: Readonly<Record<string, object>> = {
  guest: { result: 'resumed' },
  seamcall_repeat: { out_first: {}, out_last: {}, status_counts: {} },
};

function injected({ vmcs }: RunningVcpu): object {
  const info = vmcs.read32(VMCS.ENTRY_INTERRUPTION_INFO);
  if (info < VALID) return {};
  const error =
    (info & ERROR_CODE_DELIVERED) === 0 ? {} : { error_code: hex(vmcs.read(VMCS.ENTRY_ERROR_CODE)) };
  return { inj: { vector: info & 0xff, type: (info >>> 8) & 0b111, ...error } };
}

/** RIP is recorded apart from the rest. */
function changes(before: GuestState, after: GuestState): object {
  const changed = [...after].filter(([name, value]) => name !== 'rip' && before.get(name) !== value);
  if (changed.length === 0) return {};
  return { state: Object.fromEntries(changed.map(([name, value]) => [name, hex(value)])) };
}
