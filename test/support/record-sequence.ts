/** Records what a host does on a machine as a sequence that can be replayed (src/lab/replay). */
import { hex } from '../../src/abi/address.ts';
import { REGISTER_NAMES, RSP } from '../../src/abi/registers.ts';
import type { LogicalProcessor } from '../../src/machine/lp.ts';
import type { Machine } from '../../src/machine/machine.ts';

/** Registers by name. */
export type RegisterLine = Record<string, string>;

interface RecordedCall {
  readonly lp: number;
  readonly in: RegisterLine;
  readonly rng: number;
  readonly out: RegisterLine;
}

const TSC = 0xab_9a2e_cb2dn;

/** Memory writes of the host and SEAMCALLs of a machine, from its creation on; no guests. */
export class SequenceRecorder {
  readonly #lines: string[] = [];
  #pending:
    | { readonly call: RecordedCall; last: RecordedCall; count: number; statuses: Map<string, number> }
    | undefined;

  /** `seed` is the one `machine` was made with. */
  constructor(machine: Machine, name: string, seed = 1n) {
    for (const lp of machine.lps) lp.fixedTsc = TSC;
    this.#line(platformLine(machine, name, seed));
    let inModule = false;
    const { memory } = machine;
    const write = memory.write.bind(memory);
    memory.write = (address, bytes, keyId) => {
      if (!inModule) this.#flush({ t: 'write', pa: hex(address), hex: Buffer.from(bytes).toString('hex') });
      write(address, bytes, keyId);
    };
    let input: RegisterLine = {};
    let drawn = 0;
    machine.seam.observer = {
      before: (lp) => {
        inModule = true;
        input = registersOf(lp);
        drawn = machine.entropy.drawn;
      },
      after: (lp) => {
        inModule = false;
        this.#add({ lp: lp.index, in: input, rng: machine.entropy.drawn - drawn, out: registersOf(lp) });
      },
    };
  }

  /** The sequence so far, one line each. */
  text(): string {
    this.#flush();
    return `${this.#lines.join('\n')}\n`;
  }

  /** The same call again becomes one line with a count. */
  #add(call: RecordedCall): void {
    const pending = this.#pending;
    const same = (a: RecordedCall): string => JSON.stringify([a.lp, a.in, a.rng]);
    const status = call.out.rax ?? '0x0';
    if (pending !== undefined && same(pending.call) === same(call) && call.rng === 0) {
      pending.last = call;
      pending.count++;
      pending.statuses.set(status, (pending.statuses.get(status) ?? 0) + 1);
      return;
    }
    this.#flush();
    this.#pending = { call, last: call, count: 1, statuses: new Map([[status, 1]]) };
  }

  /** Writes the call that is being counted, then `line`. */
  #flush(line?: object): void {
    const pending = this.#pending;
    this.#pending = undefined;
    if (pending !== undefined) {
      const { call, last, count, statuses } = pending;
      const { lp, rng, out } = call;
      if (count === 1) this.#line({ t: 'seamcall', lp, in: call.in, ...(rng === 0 ? {} : { rng }), out });
      else {
        const status_counts = Object.fromEntries(statuses);
        const outs = { out_first: out, out_last: last.out, status_counts };
        this.#line({ t: 'seamcall_repeat', lp, count, in: call.in, step: {}, ...outs });
      }
    }
    if (line !== undefined) this.#line(line);
  }

  #line(value: object): void {
    this.#lines.push(JSON.stringify(value));
  }
}

/** Registers as a line has them: zeroes left out. */
export function registersOf({ regs }: Pick<LogicalProcessor, 'regs'>): RegisterLine {
  const line: RegisterLine = {};
  REGISTER_NAMES.forEach((name, i) => {
    if (regs.q[i] !== 0n && i !== RSP) line[name] = hex(regs.q[i]!);
  });
  return line;
}

/** The first line of a sequence on `machine`. */
export function platformLine(machine: Machine, name: string, seed: bigint): object {
  const { description } = machine;
  const seamrr = description.seamrr!;
  return {
    t: 'platform',
    module: description.module,
    name,
    maxpa: description.physicalAddressBits,
    packages: machine.packages.length,
    apic_ids: machine.lps.map(({ apicId }) => apicId),
    cmrs: machine.cmrs.map(({ start, end }) => [hex(start), hex(end - start)]),
    seamrr: [hex(seamrr.start), hex(seamrr.end - seamrr.start)],
    tsc: hex(TSC),
    rng: { seed: hex(seed) },
    cpuid: Object.fromEntries(
      [...machine.cpuid].map(([key, values]) => [key, values.map((value) => hex(value))]),
    ),
    msr: Object.fromEntries([...machine.msrs].map(([address, value]) => [hex(address), hex(value)])),
  };
}
