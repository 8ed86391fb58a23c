/** Signs of how far a host has come, which several stages look at. */
import type { Fact, HostFacts } from '../../survey/live/host-facts.ts';
import { type Looked, look, valueIn } from './finding.ts';

/** File of KVM's parameter; after kvm_intel has loaded it reads Y only where all of its checks passed. @internal */
export const KVM_TDX = '/sys/module/kvm_intel/parameters/tdx';

/** A flag of the first processor, as something that was looked at. @internal */
export function lookAtFlag(facts: HostFacts, flag: string): Looked {
  return look(facts.cpu, ({ flags }) => `${flags.has(flag) ? 'has' : 'lacks'} the flag ${flag}`);
}

/** The kernel has enabled TDX in its view of the processor, which it does last when it detects it. @internal */
export function platformFlag(facts: HostFacts): boolean {
  return valueIn(facts.cpu)?.flags.has('tdx_host_platform') === true;
}

/** KVM makes TDs. @internal */
export function kvmHasTdx(facts: HostFacts): boolean {
  return /^[Y1]/.test(valueIn(facts.text(KVM_TDX)) ?? '');
}

/** The first line of the log that matches, as something that was looked at. @internal */
export function logLine(facts: HostFacts, pattern: RegExp): Looked | undefined {
  const line = valueIn(facts.log)?.lines.find((text) => pattern.test(text));
  return line === undefined ? undefined : { where: facts.log.source, value: withoutTime(line) };
}

/** Without the time in front, which tells nothing here. */
function withoutTime(line: string): string {
  return line.replace(/^\[[^\]]*\]\s*/, '').slice(0, MAX_SHOWN);
}

/** Longer lines are cut where they are shown. */
const MAX_SHOWN = 200;

/** That a log was looked at in vain; what that means depends on whether it is whole. @internal */
export function logWithout(facts: HostFacts, what: string): Looked {
  return look(facts.log, ({ whole }) =>
    whole ? `no line about ${what}` : `no line about ${what}, but its start is lost`,
  );
}

/** The log begins where the boot began, so that a line it lacks was not printed. @internal */
export function logIsWhole(facts: HostFacts): boolean {
  return valueIn(facts.log)?.whole === true;
}

/** Facts that were not read, of those given. @internal */
export function unread(facts: readonly Fact<unknown>[]): readonly Fact<unknown>[] {
  return facts.filter(({ state }) => state !== 'read');
}
