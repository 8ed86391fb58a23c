/** Stages before the kernel: the processor, and what the BIOS set up for TDX. */
import type { HostFacts } from '../../../survey/live/host-facts.ts';
import type { MsrName } from '../../../survey/live/msrs.ts';
import {
  type Advice,
  adviceOn,
  type Finding,
  fail,
  howToKnow,
  look,
  pass,
  unknown,
  valueIn,
} from '../finding.ts';
import { TDX_MODELS } from '../host-kind.ts';
import { logIsWhole, logLine, logWithout, lookAtFlag, platformFlag } from '../signs.ts';
import type { Stage } from '../stage.ts';

/** What a register must say, in the order in which firmware comes to it. */
interface RegisterCheck {
  readonly msr: MsrName;
  readonly holds: (value: bigint) => boolean;
  readonly fails: string;
  readonly cause: string;
  readonly remedy: string;
}

/** All bits of `mask` are set. */
const has =
  (mask: bigint) =>
  (value: bigint): boolean =>
    (value & mask) === mask;

const CHECKS: readonly RegisterCheck[] = [
  {
    msr: 'IA32_FEATURE_CONTROL',
    // Bit 0: locked by the BIOS. Bit 2: VMX outside of SMX.
    holds: (value) => (value & 1n) === 0n || has(1n << 2n)(value),
    fails: 'VMX is off',
    cause: 'The BIOS locked the processor with virtualisation off.',
    remedy: 'Turn Intel virtualisation technology (VT-x, VMX) on in the BIOS.',
  },
  {
    msr: 'IA32_MTRRCAP',
    // Bit 15: there are SEAM range registers.
    holds: has(1n << 15n),
    fails: 'the processor has no SEAM range registers',
    cause: 'This variant of the processor is made without TDX, or its microcode hides it.',
    remedy: 'Update BIOS and microcode; if that changes nothing, TDX needs another processor.',
  },
  {
    msr: 'IA32_TME_ACTIVATE',
    // Bit 1: memory encryption is on.
    holds: has(1n << 1n),
    fails: 'memory encryption (TME) is off',
    cause: 'The BIOS did not turn Total Memory Encryption on.',
    remedy:
      'Turn TME on in the BIOS, then TME-MT (multi-tenant, also called MKTME) and TDX below it; boot cold.',
  },
  {
    msr: 'IA32_TME_ACTIVATE',
    // Bits 35:32: address bits that carry KeyIDs.
    holds: (value) => ((value >> 32n) & 0xfn) > 0n,
    fails: 'memory encryption has one key only (TME-MT is off)',
    cause: 'The BIOS turned Total Memory Encryption on, but not with several keys.',
    remedy: 'Turn TME-MT (multi-tenant, also called MKTME) on in the BIOS, then TDX below it; boot cold.',
  },
  {
    msr: 'IA32_MKTME_KEYID_PARTITIONING',
    // Bits 63:32: private KeyIDs.
    holds: (value) => value >> 32n > 0n,
    fails: 'TDX has no KeyIDs',
    cause: 'TDX is off in the BIOS, or the key split leaves all KeyIDs to TME-MT.',
    remedy: 'Turn TDX on in the BIOS and give it a share of the key split; boot cold.',
  },
  {
    msr: 'IA32_MKTME_KEYID_PARTITIONING',
    holds: (value) => value >> 32n > 1n,
    fails: 'TDX has a single KeyID, which the module itself needs',
    ...adviceOn('too few KeyIDs'),
  },
  {
    msr: 'IA32_SEAMRR_PHYS_BASE',
    // Bit 3: configured.
    holds: has(1n << 3n),
    fails: 'the BIOS set no memory range aside for the module',
    ...adviceOn('SEAM range off'),
  },
  {
    msr: 'IA32_SEAMRR_PHYS_MASK',
    // Bits 10 and 11: locked and enabled.
    holds: has(0b11n << 10n),
    fails: 'the memory range of the module is not enabled',
    ...adviceOn('SEAM range off'),
  },
];

const NO_KEYIDS: Advice = adviceOn('platform not supported');

function judgeProcessor(facts: HostFacts): Finding {
  const looked = [
    look(facts.cpu, ({ vendor, family, model }) => `${vendor}, family ${family}, model ${model}`),
  ];
  const cpu = valueIn(facts.cpu);
  if (cpu === undefined) return unknown('which processor it is', howToKnow([facts.cpu]), looked);
  const { tdxModel, modelName, bugs } = cpu;
  const remarks = [
    ...(bugs.has('tdx_pw_mce')
      ? [
          'A partial write to private memory poisons it on this processor, so kexec and kdump need a newer kernel.',
        ]
      : []),
    ...(bugs.has('seamret_invd_vmcs')
      ? [
          'SEAMRET loses the current VMCS on this processor, so the module cannot be updated while the host runs.',
        ]
      : []),
  ];
  const name =
    tdxModel === undefined
      ? 'a processor with TDX that is not known here'
      : (TDX_MODELS[tdxModel] ?? tdxModel);
  return pass(modelName === '' ? name : `${name} (${modelName})`, looked, remarks);
}

function judgeBios(facts: HostFacts): Finding {
  const bios = ['sys_vendor', 'product_name', 'bios_version'].map((name) =>
    facts.text(`/sys/class/dmi/id/${name}`),
  );
  const make = bios.flatMap((fact) => valueIn(fact) ?? []).join(' ');
  const looked = make === '' ? [] : [{ where: '/sys/class/dmi/id', value: make }];
  for (const { msr, holds, fails, cause, remedy } of CHECKS) {
    const fact = facts.msr(msr);
    if (fact.state === 'read' && !holds(fact.value))
      return fail(fails, { cause, remedy }, [...looked, look(fact, hexOf)]);
  }
  const partition = facts.msr('IA32_MKTME_KEYID_PARTITIONING');
  const keyIds = valueIn(facts.log)?.evidence.keyIds;
  const line = logLine(facts, /KeyID range|private KeyID/);
  if (partition.state === 'read') {
    const start = (partition.value & 0xffff_ffffn) + 1n;
    const range = `[${start}, ${start + (partition.value >> 32n)})`;
    return pass(`TDX is on, with the private KeyIDs ${range}`, [...looked, look(partition, hexOf)]);
  }
  if (keyIds !== undefined && line !== undefined)
    return pass(`TDX is on, with the private KeyIDs [${keyIds.start}, ${keyIds.end})`, [...looked, line]);
  looked.push(lookAtFlag(facts, 'tdx_host_platform'));
  if (platformFlag(facts)) return pass('TDX is on', looked);
  const off = logLine(facts, /SEAMRR.*not|tdx: not enabled by BIOS/);
  if (off !== undefined)
    return fail('the BIOS set no memory range aside for the module', adviceOn('SEAM range off'), [
      ...looked,
      off,
    ]);
  looked.push(logWithout(facts, 'private KeyIDs'), look(partition));
  const detects = valueIn(facts.config)?.get('INTEL_TDX_HOST') === 'y';
  if (detects && logIsWhole(facts)) return fail('the kernel found no private KeyIDs', NO_KEYIDS, looked);
  const toKnow = `Load the driver (modprobe msr) and run it (or collect) as root, so that ${partition.source} can be read.`;
  return unknown('whether TDX is on in the BIOS', toKnow, looked);
}

const hexOf = (value: bigint): string => `0x${value.toString(16)}`;

/** @internal */
export const FIRMWARE_STAGES: readonly Stage[] = [
  { id: 'processor', title: 'processor', after: [], judge: judgeProcessor },
  { id: 'bios', title: 'BIOS', after: ['processor'], judge: judgeBios },
];
