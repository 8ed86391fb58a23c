/** A host that works through a scenario while everything it does is recorded. */
import { GIB, hex, MIB, PAGE_4K } from '../../../src/abi/address.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { REGISTER_NAMES, type RegisterName } from '../../../src/abi/registers.ts';
import { encodeTdmrInfo, type TdmrInfo } from '../../../src/abi/tdmr-info.ts';
import type { MachineDescription } from '../../../src/machine/description.ts';
import { Machine } from '../../../src/machine/machine.ts';
import { SMALL_MACHINE } from '../module-machine.ts';
import { Dice } from '../random-model/dice.ts';
import { ONE_TDMR, TDMR_ARRAY } from '../ready-module.ts';
import { platformLine } from '../record-sequence.ts';
import { type JsonLine, VectorRecorder } from '../vector-recorder.ts';

/** Registers by name; one that is missing is 0. */
export type Operands = Partial<Record<RegisterName, bigint>>;

/** Two packages, addresses of 48 bits, and 48 private KeyIDs from 16. */
export const TWO_PACKAGES_48_BITS: Partial<MachineDescription> = {
  physicalAddressBits: 48,
  keyIds: { mktme: 15, tdx: 48 },
};
/** One package, addresses of 46 bits, and 16 private KeyIDs from 16. */
export const ONE_PACKAGE_46_BITS: Partial<MachineDescription> = {
  physicalAddressBits: 46,
  keyIds: { mktme: 15, tdx: 16 },
  processors: SMALL_MACHINE.processors.map((cpu, apicId) => ({ ...cpu, apicId, package: 0, node: 0 })),
};

const TDMR_INFO_AT = TDMR_ARRAY + PAGE_4K;
/** What a scenario leaves in a register that a leaf does not use. */
const JUNK = 0xfeed_beef_cafe_f00dn;
const TDMR_INIT_CALLS_PER_GIB = 256;

export class ScenarioHost {
  readonly recorder: VectorRecorder;
  readonly lps: number;
  /** First LP of each package. */
  readonly packageLps: readonly number[];
  readonly firstPrivateKeyId: number;
  readonly dice: Dice;
  #nextPage = ONE_TDMR.base;

  constructor(name: string, changes: Partial<MachineDescription>, seed: bigint) {
    const machine = new Machine({ ...SMALL_MACHINE, ...changes }, { seed });
    this.recorder = new VectorRecorder(platformLine(machine, name, seed) as JsonLine);
    this.lps = machine.lps.length;
    this.packageLps = machine.packages.map((pkg) => machine.lps.findIndex((lp) => lp.package === pkg));
    this.firstPrivateKeyId = machine.description.keyIds!.mktme + 1;
    this.dice = new Dice(Number(seed));
  }

  /** Executes a leaf, with junk in R14, and returns the registers afterwards; none when a TD was entered. */
  call(leaf: number, operands: Operands = {}, lp = 0): Operands {
    const input = { r14: JUNK, ...operands, rax: BigInt(leaf) };
    return fromJson(this.recorder.record({ t: 'seamcall', lp, in: toJson(input) }).out);
  }

  /** `call` where only success will do. */
  must(leaf: number, operands: Operands = {}, lp = 0): Operands {
    const out = this.call(leaf, operands, lp);
    if (out.rax !== undefined) throw new Error(`leaf ${leaf} failed with ${hex(out.rax)}`);
    return out;
  }

  /** The same call `count` times, `step` added to its registers after each. */
  repeat(leaf: number, operands: Operands, count: number, step: Operands = {}, lp = 0): void {
    const input = toJson({ ...operands, rax: BigInt(leaf) });
    this.recorder.record({ t: 'seamcall_repeat', lp, count, in: input, step: toJson(step) });
  }

  write(pa: number, bytes: Uint8Array): void {
    const text = Buffer.from(bytes)
      .toString('hex')
      .replace(/(00)+$/, '');
    this.recorder.record({ t: 'write', pa: hex(pa), hex: text, len: bytes.length });
  }

  fill(pa: number, mul: number): void {
    this.recorder.record({ t: 'fill', pa: hex(pa), len: PAGE_4K, mul });
  }

  env(change: object): void {
    this.recorder.record({ t: 'env', ...change });
  }

  /** Runs `calls` while another agent holds a lock. */
  whileHeld(lock: object, held: 'exclusive' | 'shared' | 'hp' | 1, calls: () => void): void {
    this.env({ lock: { ...lock, held } });
    calls();
    this.env({ lock: { ...lock, held: 0 } });
  }

  /** States the SHA-384 of memory. */
  expectMemory(pa: number, length: number, hkid: number): void {
    this.recorder.record({ t: 'expect', pa: hex(pa), hkid, len: length, sha384: '' });
  }

  note(text: string): void {
    this.recorder.record({ t: 'note', text });
  }

  /** The next page of the TDMR that nobody has. */
  page(): bigint {
    const page = this.#nextPage;
    this.#nextPage += PAGE_4K;
    return BigInt(page);
  }

  /** The next 2 MiB of the TDMR that nobody has. */
  largePage(): bigint {
    this.#nextPage += 2 * MIB - (this.#nextPage % (2 * MIB));
    const page = this.#nextPage;
    this.#nextPage += 2 * MIB;
    return BigInt(page);
  }

  /** SYS.INIT, and LP.INIT on every LP. */
  initialise(): void {
    this.must(TDH.sysInit);
    for (let lp = 0; lp < this.lps; lp++) this.must(TDH.sysLpInit, {}, lp);
  }

  /** Writes TDMRs and calls SYS.CONFIG. */
  configure(infos: readonly TdmrInfo[], dynamicPamt = false): Operands {
    const array = new Uint8Array(8 * infos.length);
    const view = new DataView(array.buffer);
    infos.forEach((info, i) => {
      this.write(TDMR_INFO_AT + 512 * i, encodeTdmrInfo(info));
      view.setBigUint64(8 * i, BigInt(TDMR_INFO_AT + 512 * i), true);
    });
    this.write(TDMR_ARRAY, array);
    const r8 = BigInt(this.firstPrivateKeyId) | (dynamicPamt ? 1n << 16n : 0n);
    return this.call(TDH.sysConfig, { rcx: BigInt(TDMR_ARRAY), rdx: BigInt(infos.length), r8 });
  }

  /** Everything until the module is ready, with one TDMR of 1 GiB. */
  bringUp(dynamicPamt = false): void {
    this.initialise();
    this.configure([ONE_TDMR], dynamicPamt);
    for (const lp of this.packageLps) this.must(TDH.sysKeyConfig, {}, lp);
    const calls = dynamicPamt ? TDMR_INIT_CALLS_PER_GIB / 4 : TDMR_INIT_CALLS_PER_GIB;
    this.repeat(TDH.sysTdmrInit, { rcx: BigInt(ONE_TDMR.base) }, calls * (ONE_TDMR.size / GIB));
  }
}

function toJson(registers: Operands): Record<string, string> {
  const names = REGISTER_NAMES.filter((name) => (registers[name] ?? 0n) !== 0n);
  return Object.fromEntries(names.map((name) => [name, hex(registers[name]!)]));
}

function fromJson(registers: unknown): Operands {
  return Object.fromEntries(
    Object.entries((registers ?? {}) as Record<string, string>).map(([name, value]) => [name, BigInt(value)]),
  );
}
