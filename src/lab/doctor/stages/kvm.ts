/** Stages of KVM: whether it makes TDs, and how many KeyIDs there are for them. */
import type { HostFacts } from '../../../survey/live/host-facts.ts';
import {
  type Advice,
  adviceOn,
  adviceOnLine,
  type Finding,
  fail,
  following,
  howToKnow,
  type Looked,
  look,
  pass,
  unknown,
  valueIn,
} from '../finding.ts';
import { KVM_TDX, logLine } from '../signs.ts';
import type { Stage } from '../stage.ts';

/** VM type of a TD, and the bit for it in KVM_CAP_VM_TYPES. */
const TDX_VM = 5;

const NOT_ASKED: Advice = {
  cause: 'The parameter tdx of kvm_intel is off unless somebody turns it on.',
  remedy:
    'Boot with kvm_intel.tdx=1, or put `options kvm_intel tdx=1` into a file in /etc/modprobe.d and load kvm_intel again.',
};

const TOO_OLD: Advice = {
  cause:
    'This kvm_intel has no parameter tdx: it is older than Linux 6.16, or built without CONFIG_KVM_INTEL_TDX.',
  remedy: 'Boot a kernel with CONFIG_KVM_INTEL_TDX=y.',
};

const NOT_LOADED: Advice = {
  cause: 'Nothing loaded kvm_intel, or it is built in and found virtualisation off in the BIOS.',
  remedy: 'Run `modprobe kvm_intel tdx=1`; where that fails, turn VT-x on in the BIOS.',
};

/** Parameters that have to be on, in the order in which KVM checks them. */
const GATES: readonly (readonly [path: string, name: string])[] = [
  ['/sys/module/kvm_intel/parameters/ept', 'EPT'],
  ['/sys/module/kvm/parameters/tdp_mmu', 'the TDP MMU'],
  ['/sys/module/kvm/parameters/mmio_caching', 'MMIO caching'],
  ['/sys/module/kvm_intel/parameters/eptad', 'EPT accessed and dirty bits'],
  ['/sys/module/kvm_intel/parameters/enable_apicv', 'APICv'],
];

/** Lines with which KVM says why it goes on without TDX. */
const GATE_LINES = /TDX requires|MAX_VCPUS?_PER_TD|user[- ]return MSR|uret MSR|kvm[-_]intel: .*(?:TDX|tdx)/;

function judgeKvm(facts: HostFacts): Finding {
  const parameter = facts.text(KVM_TDX);
  const value = valueIn(parameter);
  if (value === undefined) {
    if (facts.access('/sys/module/kvm_intel') !== 'none')
      return fail('this KVM has no TDX', TOO_OLD, [look(parameter)]);
    if (facts.text('/proc/sys/kernel/osrelease').state !== 'read')
      return unknown('whether KVM makes TDs', howToKnow([parameter]), [look(parameter)]);
    return fail('kvm_intel is not loaded', NOT_LOADED, [{ where: '/sys/module/kvm_intel', value: 'none' }]);
  }
  if (/^[Y1]/.test(value)) return judgeDevice(facts, [look(parameter)]);
  const asked = whoAsked(facts);
  const looked = [look(parameter), ...asked];
  // KVM gives its reason only where somebody asked, be it by hand.
  const line = logLine(facts, GATE_LINES);
  if (asked.length === 0 && line === undefined)
    return fail('nobody turned kvm_intel.tdx on', NOT_ASKED, looked);
  for (const [path, name] of GATES) {
    const gate = facts.text(path);
    if (!/^[N0]/.test(valueIn(gate) ?? '')) continue;
    return fail(`KVM runs without ${name}, which TDX needs`, adviceOn('KVM lacks a feature'), [
      ...looked,
      look(gate),
    ]);
  }
  const advice = line === undefined ? undefined : adviceOnLine(line.value);
  const turnedOff = fail(
    'kvm_intel turned TDX off when it loaded',
    advice ?? adviceOn('KVM goes on without TDX'),
    line === undefined ? looked : [...looked, line],
  );
  return following(turnedOff);
}

/** Where tdx=1 is asked for: the command line, and the files of modprobe. */
function whoAsked(facts: HostFacts): readonly Looked[] {
  const option = valueIn(facts.options)?.findLast((word) => /^kvm[-_]intel\.tdx(?:=|$)/.test(word));
  const looked =
    option === undefined || !isOn(option.split('=')[1]) ? [] : [{ where: '/proc/cmdline', value: option }];
  const files = facts.paths('/').filter((path) => /\/modprobe\.d\/[^/]+\.conf$/.test(path));
  for (const path of files) {
    const line = (valueIn(facts.text(path)) ?? '')
      .split('\n')
      .find((text) => /^\s*options\s+kvm[-_]intel\s/.test(text));
    const set = / tdx(?:=(\S+))?(?:\s|$)/.exec(line ?? '');
    if (set !== null && isOn(set[1])) looked.push({ where: path, value: line!.trim() });
  }
  return looked;
}

/** A boolean parameter without a value is on. */
function isOn(value: string | undefined): boolean {
  return value === undefined || /^(?:[yY1]|on)/.test(value);
}

function judgeDevice(facts: HostFacts, looked: readonly Looked[]): Finding {
  const access = facts.access('/dev/kvm');
  const device = { where: '/dev/kvm', value: access === 'none' ? 'none' : `this user may ${MAY[access]}` };
  const { vmTypes, askedBy } = facts.probes;
  const types =
    vmTypes === undefined
      ? {
          where: 'KVM_CAP_VM_TYPES',
          value: 'not known: only an ioctl tells, and neither python3 nor perl made it',
        }
      : {
          where: 'KVM_CAP_VM_TYPES',
          value: `0x${vmTypes.toString(16)}, asked with ${askedBy ?? 'a helper'}`,
        };
  const seen = [...looked, device, types];
  if (access === 'none') {
    return fail(
      'there is no /dev/kvm',
      { cause: 'The device is missing here, as in a container.', remedy: NO_DEVICE },
      seen,
    );
  }
  if (vmTypes !== undefined && Math.floor(vmTypes / 2 ** TDX_VM) % 2 === 0)
    return fail('KVM offers no VMs of type TDX', adviceOn('KVM goes on without TDX'), seen);
  const remarks =
    access === 'read-write'
      ? []
      : ['This user may not use /dev/kvm: the group kvm (or root) is needed to start TDs.'];
  return pass('KVM makes TDs', seen, remarks);
}

const NO_DEVICE = 'Look on the host itself, or pass /dev/kvm into the container.';

const MAY = { denied: 'not open it', read: 'only read it', 'read-write': 'open it' } as const;

/** Where the misc controller shows KeyIDs: cgroup v2, and v1. */
const CAPACITY = ['/sys/fs/cgroup/misc.capacity', '/sys/fs/cgroup/misc/misc.capacity'];
const CURRENT = ['/sys/fs/cgroup/misc.current', '/sys/fs/cgroup/misc/misc.current'];

const ALL_USED: Advice = {
  cause: 'Every TD has a KeyID of its own, and all are in use.',
  remedy: 'End a TD, or give TDX a larger share of the key split in the BIOS.',
};

const NONE_LEFT: Advice = {
  cause: 'The BIOS gives TDX a single KeyID, or KVM is without TDX.',
  remedy: 'Give TDX a larger share of the key split in the BIOS.',
};

function judgeKeyIds(facts: HostFacts): Finding {
  const capacity = facts.firstText(CAPACITY);
  const current = facts.firstText(CURRENT);
  const count = tdxCount(valueIn(capacity));
  const used = tdxCount(valueIn(current));
  const looked = [look(capacity, oneLine), ...(current.state === 'read' ? [look(current, oneLine)] : [])];
  if (count !== undefined) {
    if (count === 0) return following(fail('there is no KeyID for a TD', NONE_LEFT, looked));
    if (used !== undefined && used >= count) return fail(`all ${count} KeyIDs are in use`, ALL_USED, looked);
    const inUse = used === undefined ? '' : `, ${used} in use`;
    return pass(`${count} TDs at once${inUse}`, looked);
  }
  const keyIds = valueIn(facts.log)?.evidence.keyIds;
  const line = logLine(facts, /KeyID range|private KeyID/);
  if (keyIds === undefined || line === undefined)
    return unknown('how many TDs fit', howToKnow([capacity, facts.log]), looked);
  const says = `${keyIds.end - keyIds.start - 1} TDs at once`;
  return following(
    pass(
      says,
      [...looked, line],
      [
        'There is no misc controller (CONFIG_CGROUP_MISC, cgroup v2), so nothing shows how many KeyIDs are in use, and ' +
          'schedulers such as Kubernetes cannot count them.',
      ],
    ),
  );
}

/** The figure behind `tdx` in a file of the misc controller. */
function tdxCount(text: string | undefined): number | undefined {
  const digits = /^tdx (\d{1,9})$/m.exec(text ?? '')?.[1];
  return digits === undefined ? undefined : Number(digits);
}

const oneLine = (text: string): string =>
  text
    .split(/\s*\n\s*/)
    .join(', ')
    .slice(0, 200) || 'empty';

/** @internal */
export const KVM_STAGES: readonly Stage[] = [
  { id: 'kvm', title: 'KVM', after: ['initialisation'], judge: judgeKvm },
  { id: 'keyids', title: 'KeyIDs', after: ['initialisation', 'kvm'], judge: judgeKeyIds },
];
