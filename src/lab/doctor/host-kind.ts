/** What the machine is, as far as hosting TDs goes: before any stage of a bring-up can be asked about. */
import type { CpuFacts } from '../../survey/live/cpu-facts.ts';
import type { HostFacts } from '../../survey/live/host-facts.ts';
import { valueIn } from './finding.ts';

/**
 * `host`: a processor with TDX; `td`: a TD itself; `no-tdx`: something else, `says` what; `unreadable`: nothing tells.
 * @internal
 */
export interface HostKind {
  readonly kind: 'host' | 'td' | 'no-tdx' | 'unreadable';
  /** In one sentence for a person. */
  readonly says: string;
}

const SYSTEMS: ReadonlyMap<string, string> = new Map([
  ['darwin', 'macOS'],
  ['win32', 'Windows'],
  ['freebsd', 'FreeBSD'],
]);

/** Vendors by the name in CPUID. */
const VENDORS: ReadonlyMap<string, string> = new Map([
  ['GenuineIntel', 'Intel'],
  ['AuthenticAMD', 'AMD'],
  ['HygonGenuine', 'Hygon'],
  ['CentaurHauls', 'Zhaoxin'],
  ['Shanghai', 'Zhaoxin'],
]);

/** The TDX processors, as people call them. @internal */
export const TDX_MODELS: Readonly<Record<string, string>> = {
  'sapphire-rapids': 'Sapphire Rapids',
  'emerald-rapids': 'Emerald Rapids',
  'granite-rapids': 'Granite Rapids',
  'sierra-forest': 'Sierra Forest',
};

/** @internal */
export function kindOfHost(facts: HostFacts): HostKind {
  const no = (says: string): HostKind => ({ kind: 'no-tdx', says });
  if (facts.platform !== 'linux') {
    const system = SYSTEMS.get(facts.platform) ?? facts.platform;
    return no(`This machine runs ${system}, and TDX hosts are looked at under Linux only.`);
  }
  const cpu = valueIn(facts.cpu);
  if (cpu === undefined) {
    if (facts.cpu.state === 'failed')
      return no('This machine cannot host TDs: /proc/cpuinfo shows no x86 processor.');
    return {
      kind: 'unreadable',
      says: 'What machine this is cannot be told: there is no /proc/cpuinfo to read.',
    };
  }
  if (isTd(facts, cpu)) {
    return { kind: 'td', says: `This machine is itself a TD, ${eventLog(facts)}; a TD cannot host TDs.` };
  }
  const name = cpu.modelName === '' ? '' : ` (${cpu.modelName})`;
  const vendor = VENDORS.get(cpu.vendor) ?? cpu.vendor;
  const article = /^[AEIOU]/.test(vendor) ? 'an' : 'a';
  const other = vendor !== 'Intel';
  if (cpu.flags.has('hypervisor')) {
    const own = other ? `${article} ${vendor} processor${name}` : `an Intel processor${name}`;
    return no(
      `This machine cannot host TDs: it is a virtual machine on ${own}, and TDX needs the hardware itself.`,
    );
  }
  if (other)
    return no(
      `This machine cannot host TDs: it has ${article} ${vendor} processor${name}, and TDX is Intel's.`,
    );
  if (cpu.tdxModel === undefined && !showsTdx(facts, cpu)) {
    const numbers = `family ${cpu.family}, model ${cpu.model}`;
    return no(
      `This machine cannot host TDs: its processor${name}, ${numbers}, is none of those with TDX that are known here.`,
    );
  }
  return { kind: 'host', says: '' };
}

function isTd(facts: HostFacts, cpu: CpuFacts): boolean {
  const guestLine = valueIn(facts.log)?.lines.some((line) => GUEST.test(line)) === true;
  return cpu.flags.has('tdx_guest') || guestLine;
}

const GUEST = /tdx: Guest detected|Memory Encryption Features active: Intel TDX/;

/** Tables by which a TD's firmware tells where the event log is: today's, and that of early firmware. */
const EVENT_LOG_TABLES = ['/sys/firmware/acpi/tables/CCEL', '/sys/firmware/acpi/tables/TDEL'];

function eventLog(facts: HostFacts): string {
  const tables = EVENT_LOG_TABLES.map((path) => facts.bytes(path));
  const found = tables.find(({ state }) => state === 'read' || state === 'denied');
  return found === undefined
    ? 'without an event log'
    : `with an event log (${found.source.split('/').at(-1)})`;
}

/** A processor that is not known here can still be a newer one with TDX. */
function showsTdx(facts: HostFacts, cpu: CpuFacts): boolean {
  const keyIds = valueIn(facts.msr('IA32_MKTME_KEYID_PARTITIONING')) ?? 0n;
  const logged = valueIn(facts.log)?.evidence.keyIds !== undefined;
  return cpu.flags.has('tdx_host_platform') || keyIds >> 32n > 0n || logged;
}
