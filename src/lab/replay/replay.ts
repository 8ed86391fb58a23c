/**
 * Replays recorded sequences of calls against the module model and compares every register, every random number
 * drawn and every byte of memory that the recording states. What the model does not support is a difference too.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { gunzipSync } from 'node:zlib';
import { hex } from '../../abi/address.ts';
import { InputError } from '../../abi/input-error.ts';
import { hostLeafName } from '../../abi/leaves.ts';
import { RAX } from '../../abi/registers.ts';
import { MachineCheck } from '../../machine/exceptions.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Machine } from '../../machine/machine.ts';
import type { TdxModule } from '../../module/tdx-module.ts';
import { applyEnvironment } from './environment.ts';
import type { GuestPort } from './guest-port.ts';
import { compareRegisters, loadRegisters, type Mismatch } from './mismatch.ts';
import { loadReplayModule, replayMachine } from './replay-machine.ts';
import { tdGuestPort } from './td-guest-port.ts';
import {
  type ExpectLine,
  type PlatformLine,
  parseVectorLine,
  type RegisterMap,
  type RepeatLine,
  type SeamcallLine,
  type VectorLine,
} from './vector-lines.ts';

/** A difference, with the number of its line in the file. @public */
export interface LocatedMismatch extends Mismatch {
  readonly line: number;
  /** The leaf or kind of line with the field that differs, such as `TDH.SYS.RD: r8`. */
  readonly what: string;
}

/** What a sequence came to. @public */
export interface ReplayResult {
  /** Name from the platform line. */
  readonly name: string;
  /** SEAMCALLs executed and compared. */
  readonly calls: number;
  /** Exits of guests delivered and compared. */
  readonly guestEvents: number;
  /** Memory contents compared. */
  readonly expects: number;
  readonly mismatches: readonly LocatedMismatch[];
}

/** A sequence with the file it came from. @public */
export interface FileReplay extends ReplayResult {
  readonly file: string;
}

/** @public */
export interface ReplayOptions {
  /** Makes the guest side of a machine; null for none, which reports every guest as not supported. */
  readonly guestPort?: ((machine: Machine) => GuestPort) | null;
}

const GZIP_MAGIC = [0x1f, 0x8b] as const;

/** Replays files, plain or gzip, one sequence each. Throws InputError naming the file and line. @public */
export async function replayFiles(
  paths: readonly string[],
  options: ReplayOptions = {},
): Promise<readonly FileReplay[]> {
  const results: FileReplay[] = [];
  for (const file of paths) {
    const text = await readVectorFile(file);
    try {
      results.push({ file, ...replayVectors(text, options) });
    } catch (error) {
      throw error instanceof InputError ? new InputError(`${file}: ${error.message}`) : error;
    }
  }
  return results;
}

/** Replays one sequence, given as JSON lines. Throws InputError naming the line. @public */
export function replayVectors(text: string, options: ReplayOptions = {}): ReplayResult {
  const lines = text.split('\n');
  const first = parseVectorLine(lines[0] ?? '', 1);
  if (first.t !== 'platform') throw new InputError('line 1: a sequence begins with its platform');
  const replay = new Replay(first, options);
  for (let i = 1; i < lines.length; i++) {
    if (lines[i]!.trim() !== '') replay.execute(parseVectorLine(lines[i]!, i + 1), i + 1);
  }
  return replay.result();
}

/** A sequence that is being replayed, line by line. @internal */
export class Replay {
  readonly machine: Machine;
  readonly #platform: PlatformLine;
  readonly #guest: GuestPort | null;
  readonly #mismatches: LocatedMismatch[] = [];
  #calls = 0;
  #guestEvents = 0;
  #expects = 0;

  constructor(platform: PlatformLine, options: ReplayOptions = {}) {
    this.#platform = platform;
    this.machine = replayMachine(platform);
    const { guestPort = tdGuestPort } = options;
    this.#guest = guestPort === null ? null : guestPort(this.machine);
  }

  /** What the lines so far came to. */
  result(): ReplayResult {
    return {
      name: this.#platform.name,
      calls: this.#calls,
      guestEvents: this.#guestEvents,
      expects: this.#expects,
      mismatches: this.#mismatches,
    };
  }

  /** Executes one line and notes what differs. */
  execute(line: VectorLine, lineNumber: number): void {
    const found = this.#step(line, lineNumber);
    for (const mismatch of found) {
      const what = `${subjectOf(line)}: ${mismatch.field}`;
      this.#mismatches.push({ line: lineNumber, what, ...mismatch });
    }
  }

  #step(line: VectorLine, lineNumber: number): readonly Mismatch[] {
    const { machine } = this;
    switch (line.t) {
      case 'write': {
        const bytes = new Uint8Array(line.len ?? line.hex.length);
        bytes.set(line.hex);
        machine.memory.write(Number(line.pa), bytes, 0);
        return [];
      }
      case 'fill': {
        const bytes = Uint8Array.from({ length: line.len }, (_, i) => (line.mul * i) & 0xff);
        machine.memory.write(Number(line.pa), bytes, 0);
        return [];
      }
      case 'seamcall':
        return this.#seamcall(line, this.#lp(line.lp, lineNumber));
      case 'seamcall_repeat':
        return this.#repeat(line, this.#lp(line.lp, lineNumber));
      case 'guest':
        if (this.#guest === null) return notSupported('guest');
        this.#guestEvents++;
        return this.#guest.deliverExit(this.#lp(line.lp, lineNumber), line);
      case 'guest_state':
        if (this.#guest === null) return notSupported('guest_state');
        this.#guest.changeState(this.#lp(line.lp, lineNumber), line);
        return [];
      case 'expect':
        return this.#expect(line);
      case 'env': {
        if (line.lp !== undefined) this.#lp(line.lp, lineNumber);
        const missing = applyEnvironment(machine, this.#module, this.#guest, line);
        return missing === undefined ? [] : notSupported(`env: ${missing}`);
      }
      case 'reload': {
        // What the loader tells the module is environment, which stays until a line changes it.
        const { handoff } = machine.seam;
        loadReplayModule(machine, this.#platform.module);
        machine.seam.handoff = handoff;
        return [];
      }
      case 'note':
        return [];
      case 'platform':
        throw new InputError(`line ${lineNumber}: a second platform in one sequence`);
      case 'unknown':
        return notSupported(line.type);
    }
  }

  get #module(): TdxModule {
    return this.machine.seam.module as TdxModule;
  }

  #lp(index: number, lineNumber: number): LogicalProcessor {
    const lp = this.machine.lps[index];
    if (lp === undefined) throw new InputError(`line ${lineNumber}: the platform has no LP ${index}`);
    return lp;
  }

  #seamcall(line: SeamcallLine, lp: LogicalProcessor): readonly Mismatch[] {
    const drawnBefore = this.machine.entropy.drawn;
    const crash = this.#call(lp, line.in);
    if (crash !== undefined) return [crash];
    const drawn = this.machine.entropy.drawn - drawnBefore;
    const random: Mismatch[] = drawn === (line.rng ?? 0) ? [] : [difference('random', line.rng ?? 0, drawn)];
    if (line.entered !== true) return [...compareRegisters(line.out ?? {}, lp.regs), ...random];
    if (this.#guest === null) return notSupported('entered');
    if (!this.#guest.isInGuest(lp)) return [difference('entered', 1, 0), ...compareRegisters({}, lp.regs)];
    return [...this.#guest.compareEntry(lp, line), ...random];
  }

  #repeat(line: RepeatLine, lp: LogicalProcessor): readonly Mismatch[] {
    const input: Record<string, bigint> = { ...line.in };
    const statuses = new Map<string, number>();
    const found: Mismatch[] = [];
    for (let i = 0; i < line.count; i++) {
      const crash = this.#call(lp, input);
      if (crash !== undefined) return [crash];
      const status = hex(lp.regs.q[RAX]!);
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      if (i === 0) found.push(...compareRegisters(line.out_first, lp.regs));
      if (i === line.count - 1) found.push(...compareRegisters(line.out_last, lp.regs));
      for (const [name, step] of Object.entries(line.step)) {
        input[name] = BigInt.asUintN(64, (input[name] ?? 0n) + step);
      }
    }
    for (const status of new Set([...Object.keys(line.status_counts), ...statuses.keys()])) {
      const [want, got] = [line.status_counts[status] ?? 0, statuses.get(status) ?? 0];
      if (want !== got) found.push(difference(`calls with status ${status}`, want, got));
    }
    return found;
  }

  /** Calls the module itself: the recording knows no P-SEAMLDR behind RAX bit 63. Returns a crash as a difference. */
  #call(lp: LogicalProcessor, input: RegisterMap): Mismatch | undefined {
    this.#calls++;
    loadRegisters(lp.regs, input);
    try {
      this.#module.seamcall(lp);
      return undefined;
    } catch (error) {
      return { field: 'crash', expected: 'a status', actual: String(error) };
    }
  }

  #expect(line: ExpectLine): readonly Mismatch[] {
    this.#expects++;
    const bytes = this.#read(Number(line.pa), line.len, line.hkid);
    if (typeof bytes === 'string') return [{ field: 'memory', expected: 'contents', actual: bytes }];
    if (line.sha384 !== undefined) {
      const digest = createHash('sha384').update(bytes).digest('hex');
      return digest === line.sha384 ? [] : [{ field: 'memory', expected: line.sha384, actual: digest }];
    }
    const want = new Uint8Array(line.len);
    want.set(line.hex ?? []);
    const at = bytes.findIndex((byte, i) => byte !== want[i]);
    return at < 0 ? [] : [difference(`memory at ${hex(Number(line.pa) + at)}`, want[at]!, bytes[at]!)];
  }

  #read(address: number, length: number, keyId: number): Uint8Array | string {
    try {
      return this.machine.memory.read(address, length, keyId);
    } catch (error) {
      if (error instanceof MachineCheck) return error.message;
      throw error;
    }
  }
}

function subjectOf(line: VectorLine): string {
  if (line.t !== 'seamcall' && line.t !== 'seamcall_repeat') return line.t;
  return hostLeafName(Number((line.in.rax ?? 0n) & 0xffffn));
}

function difference(field: string, expected: number, actual: number): Mismatch {
  return { field, expected: hex(expected), actual: hex(actual) };
}

function notSupported(field: string): readonly Mismatch[] {
  return [{ field, expected: 'supported', actual: 'not supported by this model' }];
}

async function readVectorFile(file: string): Promise<string> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(file);
  } catch (error) {
    throw new InputError(
      `${file}: cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`,
    );
  }
  if (bytes[0] !== GZIP_MAGIC[0] || bytes[1] !== GZIP_MAGIC[1]) return new TextDecoder().decode(bytes);
  try {
    return new TextDecoder().decode(gunzipSync(bytes));
  } catch {
    throw new InputError(`${file}: the gzip data are damaged`);
  }
}
