/** Lines of detection and bring-up (Linux host rules 1.10b and 1.13), in the wordings of the series since 2022. */
import { formatRange, GIB } from '../../../abi/address.ts';
import type { Fact } from '../explanation.ts';
import type { Groups, LogLine } from './log-line.ts';

const RANGE = String.raw`\[(?<start>0x[0-9a-f]+),? ?-?(?<end>0x[0-9a-f]+)[)\]]`;
const BIOS_ON = 'Turn TME, TME-MT, TDX, the TDX SEAM loader and SGX on in the BIOS, then boot cold.';

function keyIdFacts({ start, end, count }: Groups): Fact[] {
  const first = Number(start);
  const number = count === undefined ? Number(end) - first : Number(count);
  return [
    { label: 'private KeyIDs', text: `${number}: KeyID ${first} becomes the global one` },
    { label: 'TDs at once', text: `${Math.max(number - 1, 0)}` },
  ];
}

function cmrFacts({ start, end }: Groups): Fact[] {
  const gib = (Number(end) - Number(start)) / GIB;
  return [{ label: 'size', text: `${Number(gib.toFixed(2))} GiB` }];
}

function tdmrFacts({ start, end }: Groups): Fact[] {
  if (start === undefined || end === undefined) return [];
  return [{ label: 'TDMR', text: formatRange({ start: Number(start), end: Number(end) }) }];
}

function pamtFacts({ amount, unit }: Groups): Fact[] {
  const kib = Number(amount) * (unit === 'pages' ? 4 : 1);
  return [
    {
      label: 'memory',
      text: `about ${Number(((kib * 256) / 1024 / 1024).toFixed(1))} GiB of TDMRs, at 1/256`,
    },
  ];
}

/** CPU models with the partial-write erratum (X86_BUG_TDX_PW_MCE). */
function modelFacts({ model }: Groups): Fact[] {
  const name = model === '8f' ? 'Sapphire Rapids' : model === 'cf' ? 'Emerald Rapids' : undefined;
  return name === undefined
    ? []
    : [{ label: 'erratum', text: `${name}: a partial write to private memory poisons it (TDX_PW_MCE)` }];
}

/** @internal */
export const BRING_UP_LINES: readonly LogLine[] = [
  {
    name: 'private KeyIDs found',
    pattern: /KeyID range:? \[(?<start>\d+), ?(?<end>\d+)\)/i,
    says: 'The firmware enabled TDX and left these KeyIDs to it. This is only detection: the module comes later.',
    facts: keyIdFacts,
    cases: [
      {
        cause: 'When no line about the module follows, it was never initialised: option, kernel or BIOS.',
        remedy:
          'Look for "module not loaded" or "initialization failed"; older kernels want kvm_intel.tdx=1.',
      },
    ],
  },
  {
    name: 'private KeyIDs found',
    pattern: /private KeyIDs?:? start (?<start>\d+),? (?:nr|num|number):? (?<count>\d+)/i,
    says: 'The firmware enabled TDX and left these KeyIDs to it.',
    facts: keyIdFacts,
    cases: [],
  },
  {
    name: 'too few KeyIDs',
    pattern: /too few private KeyIDs?/i,
    says: 'TDX needs two private KeyIDs at least: one is the global one, the rest are for TDs.',
    cases: [
      {
        cause: 'The key split in the BIOS gives TDX fewer than two.',
        remedy: 'Give TDX more KeyIDs in the BIOS.',
      },
    ],
  },
  {
    name: 'hibernation',
    pattern: /hibernation (?:support )?(?:is )?enabled/i,
    says: 'TDX stays off because the kernel could hibernate, which TDX memory does not survive.',
    cases: [
      {
        cause: 'The kernel was built with hibernation, and nothing on the command line turns it off.',
        remedy: 'Boot with `nohibernate`.',
      },
    ],
  },
  {
    name: 'no ACPI S3',
    pattern: /(?:disable )?ACPI S3/i,
    says: 'TDX is on, so suspend to RAM is off for this boot: it would destroy TDX memory. Not an error.',
    cases: [{ cause: 'Detection found TDX.', remedy: 'Nothing, or turn TDX off in the BIOS to suspend.' }],
  },
  {
    name: 'memory notifier',
    pattern: /memory[_ ]notifier(?:\(\))?.*?\(?(?<errno>-\d+)\)?|memory notifier registration/i,
    says: 'TDX stays off: the kernel could not watch for memory being added.',
    cases: [{ cause: 'An internal failure of the kernel.', remedy: 'Report it with the errno.' }],
  },
  {
    name: 'platform not supported',
    pattern:
      /not supported by the host platform|host platform (?:is )?(?:not |un)support|TDX disabled platform/i,
    says: 'The kernel found no private KeyIDs, so the firmware has not enabled TDX.',
    cases: [
      { cause: 'TDX is off in the BIOS, or detection ended earlier for another reason.', remedy: BIOS_ON },
    ],
  },
  {
    name: 'KVM goes on without TDX',
    pattern: /Failed to initialize TDX module/i,
    says: 'kvm_intel asked for the module and bring-up failed; KVM loads without TDX.',
    cases: [
      {
        cause: 'The lines of virt/tdx or tdx before this one say what failed.',
        remedy: 'Explain the first of them. After the repair reboot: bring-up is tried once per boot.',
      },
    ],
  },
  {
    name: 'CPU feature missing',
    pattern: /(?<feature>XSAVE|MOVDIR64B|self-?snoop) is (?:required|not supported)/i,
    says: 'TDX needs the CPU feature {feature}, and the kernel does not see it.',
    cases: [
      {
        cause: 'The feature was turned off on the command line or in the BIOS, or this is a virtual machine.',
        remedy: 'Remove noxsave, clearcpuid= and the like; run on the real hardware.',
      },
    ],
  },
  {
    name: 'module not loaded',
    pattern: /module (?:is )?not (?:loaded|found|detected)/i,
    says: 'The first SEAMCALL found no TDX module (TDX_SEAMCALL_VMFAILINVALID); bring-up ends with -19 (ENODEV).',
    cases: [
      {
        cause:
          'The SEAM loader is off in the BIOS, or it found no module: many boards load it from the boot partition, ' +
          '/EFI/TDX/TDX-SEAM.so and TDX-SEAM.so.sigstruct, some only from the BIOS image.',
        remedy: `${BIOS_ON} Put a module image where the firmware looks for it.`,
      },
    ],
  },
  {
    name: 'SEAM range off',
    pattern: /SEAMRR.*?(?:not |isn't |un)(?:enabled|configured|supported)|tdx: not enabled by BIOS/i,
    says: 'The firmware set no memory range for the module aside: the first SEAMCALL raises #GP.',
    cases: [{ cause: 'TDX or its SEAM loader is off in the BIOS, KeyIDs or not.', remedy: BIOS_ON }],
  },
  {
    name: 'module identity',
    pattern:
      /major_version (?<major>\d+), minor_version (?<minor>\d+), build_date (?<date>\d+), build_num (?<build>\d+)/,
    says: 'The module is of the {major}.{minor} line, built {date}, build {build}.',
    cases: [
      {
        cause: 'Printed by kernels that read the version before anything else.',
        remedy: 'Compare with `tdxlab modules`; old builds of a line have fewer features.',
      },
    ],
  },
  {
    name: 'module identity',
    pattern: /module version:? (?<version>\d+\.\d+\.\d+)/i,
    says: 'The module is release {version}.',
    cases: [{ cause: 'Printed once the module answered.', remedy: 'See `tdxlab modules {version}`.' }],
  },
  {
    name: 'convertible memory',
    pattern: new RegExp(`CMR(?: ?\\[?\\d+\\]?)?:? ${RANGE}`, 'i'),
    says: 'The firmware declares this range convertible to TDX memory. Memory in no CMR can never be in a TDMR.',
    facts: cmrFacts,
    cases: [],
  },
  {
    name: 'PAMT allocated',
    pattern: /(?<amount>\d+) (?<unit>KBs?|pages) allocated for PAMT/i,
    says: '{amount} {unit} of memory went to the page metadata of the module, for good.',
    facts: pamtFacts,
    cases: [
      {
        cause: 'Every TDMR costs 16 bytes per 4 KiB page, and a little for the larger pages.',
        remedy: 'Nothing to repair; a kernel and module with Dynamic PAMT need about a hundredth.',
      },
    ],
  },
  {
    name: 'Dynamic PAMT not used',
    pattern: /Dynamic PAMT (?:is )?not (?:used|supported|enabled)/i,
    says: 'PAMTs are allocated in full, 1/256 of memory.',
    cases: [
      {
        cause: 'The module lacks feature bit 36, or the CPU has more than 48 physical address bits.',
        remedy: 'Update the module; on wider CPUs there is no way yet.',
      },
    ],
  },
  {
    name: 'module initialised',
    pattern: /(?:TDX[- ])?module (?:is )?initiali[sz]ed/i,
    says: 'Bring-up succeeded: TDs can be created as soon as KVM supports them.',
    cases: [
      {
        cause: 'Every stage went through.',
        remedy:
          'When TDs still cannot be created, look at kvm_intel: its parameter tdx, and lines of its own.',
      },
    ],
  },
  {
    name: 'frame pointer bug',
    pattern: /clobber bug|clobbers RBP/i,
    says: 'The module lacks NO_RBP_MOD, so entering a TD would destroy the frame pointer; Linux refuses it (-22).',
    cases: [{ cause: 'A module too old for this kernel.', remedy: 'Update the TDX module.' }],
  },
  {
    name: 'reserved areas exhausted',
    pattern: new RegExp(`(?:TDMR:? ${RANGE}:? )?reserved areas? exhausted`, 'i'),
    says: 'One TDMR needs more reserved areas than the module allows (16); bring-up ends with -28 (ENOSPC).',
    facts: tdmrFacts,
    cases: [
      {
        cause:
          'Every hole between RAM ranges takes a reserved area, and so does each PAMT inside the TDMR. Firmware ' +
          'that splinters low memory with ACPI data, NVS and reserved ranges uses up all of them.',
        remedy:
          'Use a kernel that takes holes from CMRs (far fewer), get a BIOS that keeps its tables together, or leave ' +
          'splintered memory out with memmap=. `tdxlab plan` on this log lists the holes and tries the remedies.',
      },
    ],
  },
  {
    name: 'TDMRs exhausted',
    pattern: new RegExp(`(?:TDMR:? ${RANGE}:? )?TDMRs exhausted`, 'i'),
    says: 'Memory has more ranges than the module has TDMRs (64); bring-up ends with -28 (ENOSPC).',
    facts: tdmrFacts,
    cases: [
      {
        cause: 'One TDMR is made per memory range of a node, rounded out to 1 GiB.',
        remedy: 'Undo numa=fake and memmap= options; turn sub-NUMA clustering off in the BIOS.',
      },
    ],
  },
  {
    name: 'TDMRs run short',
    pattern: /TDMRs reaching limit:? (?<used>\d+) used out of (?<max>\d+)/i,
    says: '{used} of {max} TDMRs are in use: it still works, but a few more memory ranges would not fit.',
    cases: [
      { cause: 'Memory lies in many ranges.', remedy: 'Nothing now; look before adding memory or nodes.' },
    ],
  },
  {
    name: 'PAMT on another node',
    pattern: new RegExp(
      `TDMR:? ${RANGE}.*(?:local (?:NUMA )?node|node 0).*PAMT|no local (?:NUMA )?node.*PAMT`,
      'i',
    ),
    says: 'The kernel found no node for this TDMR and takes its PAMT from node 0. It works, but slower.',
    facts: tdmrFacts,
    cases: [{ cause: 'Memory map and SRAT do not match.', remedy: 'Check the SRAT; update the BIOS.' }],
  },
  {
    name: 'module shut down',
    pattern: /(?:TDX )?module (?:is|has been|was) shut ?down|shut(?:ting)? down (?:the )?TDX module/i,
    says: 'The kernel shut the module down after a failure; it takes no more calls in this boot.',
    cases: [
      {
        cause: 'The design of the 2022 series. Later kernels leave the module as it is.',
        remedy: 'Find the first failing line above; reboot after the repair.',
      },
    ],
  },
  {
    name: 'initialisation failed',
    pattern: /(?:TDX[- ])?(?:module )?initiali[sz]ation failed[:.]? ?\((?<errno>-?\d+)\)/i,
    says: 'Bring-up failed. The number only sums it up: the cause is in the lines before.',
    cases: [],
  },
  {
    name: 'CPU model',
    pattern: /CPU0: .*\(family: 0x6, model: 0x(?<model>[0-9a-f]+)/i,
    says: 'The CPU of the machine, which decides on errata and on the module it takes.',
    facts: modelFacts,
    cases: [],
  },
];
