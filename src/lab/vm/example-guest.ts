/** The guest of the examples: one script, whatever protects it. */
import { hex, MIB, PAGE_4K } from '../../abi/address.ts';
import { POWER_OFF, POWER_PORT } from '../../vmm/vm/devices.ts';
import { COM1 } from '../../vmm/vm/serial-port.ts';
import type { GuestCpu, GuestFlow, GuestScript } from '../guest/flow.ts';

/** Where the guest works, above what firmware uses: its secret, the page for the host, a page for reports. @public */
export const EXAMPLE_PAGES = {
  secret: 32 * MIB,
  shared: 32 * MIB + PAGE_4K,
  report: 32 * MIB + 2 * PAGE_4K,
} as const;

/** What the guest writes, and what the host answers. @public */
export const EXAMPLE_TEXTS = {
  secret: 'the secret of this guest',
  greeting: 'hello, host',
  answer: 'hello, guest',
  again: 'private once more',
} as const;

/** Port of power-on self-test codes, by which the guest says how far it is. @public */
export const STEP_PORT = 0x80;

/** @public */
export const EXAMPLE_STEPS = { secretWritten: 1, pageShared: 2, pagePrivate: 3, waiting: 4 } as const;

/** What a technology has its guests do in its own way. @public */
export interface GuestPlatform {
  /** How the guest calls what protects it. */
  readonly title: string;
  /** `script` as it runs there. */
  wrap(script: GuestScript): GuestScript;
  /** Makes a page usable by the host, or private; true when that was granted. */
  convert(cpu: GuestCpu, gpa: number, isPrivate: boolean): GuestFlow<boolean>;
  /** The machine knows whose pages are: a store by the host raises an exception. */
  readonly hostStoresFault?: true;
  /** The measurement that the guest can prove, in hexadecimal digits; absent where there is none. */
  readonly measurement?: (cpu: GuestCpu, page: number) => GuestFlow<string>;
}

const TEXT = new TextEncoder();

/** Prints over the serial port, each byte when the transmitter is empty. @public */
export function* printLine(cpu: GuestCpu, text: string): GuestFlow {
  for (const byte of TEXT.encode(`${text}\n`)) yield* cpu.out(COM1, byte);
}

/** The life of vCPU `cpu.index` of `vcpus`. @public */
export function exampleScript(platform: GuestPlatform, vcpus: number): GuestScript {
  return platform.wrap(function* (cpu) {
    if (cpu.index > 0) {
      yield* printLine(cpu, `vCPU ${cpu.index} of ${vcpus} is up`);
      yield* step(cpu, EXAMPLE_STEPS.waiting);
      return;
    }
    yield* printLine(cpu, `I run as ${platform.title} with ${vcpus} vCPU${vcpus === 1 ? '' : 's'}`);
    if (platform.measurement !== undefined) {
      yield* printLine(cpu, `measured as ${yield* platform.measurement(cpu, EXAMPLE_PAGES.report)}`);
    }
    yield* keepSecret(cpu);
    yield* share(cpu, platform);
    yield* cpu.out(POWER_PORT, POWER_OFF, 2);
  });
}

function* keepSecret(cpu: GuestCpu): GuestFlow {
  yield* cpu.write(EXAMPLE_PAGES.secret, TEXT.encode(EXAMPLE_TEXTS.secret));
  yield* printLine(cpu, `wrote a secret to ${hex(EXAMPLE_PAGES.secret)}`);
  yield* step(cpu, EXAMPLE_STEPS.secretWritten);
  const kept = yield* readText(cpu, EXAMPLE_PAGES.secret, EXAMPLE_TEXTS.secret.length);
  yield* printLine(cpu, kept === EXAMPLE_TEXTS.secret ? 'the secret is still there' : 'the secret is gone');
}

function* share(cpu: GuestCpu, platform: GuestPlatform): GuestFlow {
  const { shared } = EXAMPLE_PAGES;
  const isShared = yield* platform.convert(cpu, shared, false);
  yield* printLine(
    cpu,
    `${isShared ? 'shared' : 'could not share'} the page at ${hex(shared)} with the host`,
  );
  yield* cpu.write(shared, TEXT.encode(EXAMPLE_TEXTS.greeting));
  yield* step(cpu, EXAMPLE_STEPS.pageShared);
  yield* printLine(cpu, `the host answers "${yield* readText(cpu, shared, EXAMPLE_TEXTS.answer.length)}"`);
  const isPrivate = yield* platform.convert(cpu, shared, true);
  yield* cpu.write(shared, TEXT.encode(EXAMPLE_TEXTS.again));
  yield* printLine(cpu, isPrivate ? 'took the page back' : 'could not take the page back');
  yield* step(cpu, EXAMPLE_STEPS.pagePrivate);
}

function* readText(cpu: GuestCpu, gpa: number, length: number): GuestFlow<string> {
  return new TextDecoder().decode(yield* cpu.read(gpa, length));
}

function* step(cpu: GuestCpu, number: number): GuestFlow {
  yield* cpu.out(STEP_PORT, number);
}
