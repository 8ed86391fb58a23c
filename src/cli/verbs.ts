/** Every verb of the command line, in the order of the overview. */
import type { KnobName } from '../kernel/policy/kernel-policy.ts';
import { KNOB_NAMES, KNOBS } from '../kernel/policy/knobs.ts';
import type { Verb } from './verb.ts';

/** Options that choose how a host is brought up. */
const HOST_OPTIONS: Verb['options'] = [
  ['--holes <source>', 'reserved areas from gaps between memory blocks (memblock) or between CMRs (cmr)'],
  ['--module <release>', 'load this release of the TDX module instead of the one the host has'],
  ['--dynamic-pamt', 'use Dynamic PAMT where the module and the machine allow it'],
];

const BRING_UP_OPTIONS: Verb['options'] = [
  ...HOST_OPTIONS,
  [
    '--policy <knob=value>',
    "choose the kernel's policy, knob by knob; may be given several times",
    'repeatable',
  ],
];

const HOST_HELP = `A host is one or more of: a kernel log (dmesg, journalctl -k), /proc/iomem read
as root, a SRAT (binary from /sys/firmware/acpi/tables, acpidump or iasl text),
a *.machine.json; each plain or gzip, - for standard input. Or an embedded host:
spr-256g-2node, emr-256g-4node, spr-2t-2node.`;

const POLICY_HELP = `Knobs of --policy, the default first:
${KNOB_NAMES.map(knobHelp).join('\n')}`;

/** A knob's name and values, in lines of at most 80 columns. */
function knobHelp(knob: KnobName): string {
  const values = KNOBS[knob].values.map(({ value }) => String(value));
  const words =
    values.length === 0
      ? [KNOBS[knob].title]
      : values.map((value, i) => (i < values.length - 1 ? `${value},` : value));
  const lines: string[] = [`  ${knob.padEnd(14)}`];
  for (const word of words.flatMap((text) => text.split(' '))) {
    if (`${lines.at(-1)} ${word}`.length > 80) lines.push(' '.repeat(16));
    lines[lines.length - 1] += ` ${word}`;
  }
  return lines.join('\n');
}

const BRING_UP_HELP = `${HOST_HELP}\n\n${POLICY_HELP}`;

const SCENARIO_POLICY: Verb['options'][number] = [
  '--policy <policy>',
  'a policy set by name, or knob=value,knob=value; compare takes several, as more rows',
  'repeatable',
];

const SCENARIO_HELP = `A scenario is a YAML file, or the name of one that comes with tdxlab (in
scenarios/). Exit code 0: all expectations and invariants hold; 1: one does not.`;

/** @internal */
export const VERBS: readonly Verb[] = [
  {
    name: 'plan',
    operands: '<host...>',
    summary: 'say how TDX would come up on a host: TDMRs, PAMTs, memory per node, and what fails and why',
    options: HOST_OPTIONS,
    help: HOST_HELP,
    load: () => import('./verbs/plan.ts'),
  },
  {
    name: 'up',
    operands: '<host...>',
    summary: 'bring the simulated host up through every SEAMCALL, with its kernel log',
    options: [
      ...BRING_UP_OPTIONS,
      [
        '--fail-at <point>',
        'fail on purpose: seamcall:N, LEAF[#N][=STATUS], alloc:N or alloc:PURPOSE (vmxon-region, tdmr-list, pamt, tdmr-pa-array)',
      ],
      ['--trace <file>', 'write one line per SEAMCALL to this file'],
      ['--save <file>', 'save the host after its bring-up to this file'],
    ],
    help: BRING_UP_HELP,
    load: () => import('./verbs/up.ts'),
  },
  {
    name: 'sysfs',
    operands: '<host-and-path...>',
    summary: 'bring a host up and show the files it exposes to programs, or the one at a /sys path',
    options: [...BRING_UP_OPTIONS, ['--write <value>', 'write this value to the file, then show it']],
    help: BRING_UP_HELP,
    load: () => import('./verbs/sysfs.ts'),
  },
  {
    name: 'td',
    operands: '<host-and-program...>',
    summary: 'run a scripted TD on a host and print its life; a program is hello, counter or a .ts file',
    options: [
      ...BRING_UP_OPTIONS,
      ['--save <file>', 'keep the TD at the end, and save the host to this file'],
    ],
    load: () => import('./verbs/td.ts'),
  },
  {
    name: 'inspect',
    operands: '<file-or-host...>',
    summary: 'look at a saved host, or at one brought up first: TDs, KeyIDs, pages by owner, secure EPT',
    options: [
      ['--td <tdr>', 'only the TD whose TDR is at this address'],
      ['--sept', 'with the secure EPT of every TD as a tree'],
      ...BRING_UP_OPTIONS,
    ],
    help: BRING_UP_HELP,
    load: () => import('./verbs/inspect.ts'),
  },
  {
    name: 'explain',
    operands: '<word...>',
    summary:
      'decode a status, leaf number, metadata field id, errno or log line, and say what to do about it',
    options: [],
    hyphens: true,
    load: () => import('./verbs/explain.ts'),
  },
  {
    name: 'doctor',
    operands: '',
    summary:
      'say how far this machine has come up as a TDX host, stage by stage: what fails, why, what to do',
    options: [
      [
        '--root <path>',
        'look at what was collected of another machine: a directory, a .tar.gz, or a mounted root',
      ],
    ],
    help: `It only reads, and needs no root; what this user may not read is reported as
unknown. Exit code 0: ready for TDs, or no TDX machine (a VM, another vendor,
a TD); 1: a machine with TDX that is not ready, or of which it cannot be told.`,
    load: () => import('./verbs/doctor.ts'),
  },
  {
    name: 'collect',
    operands: '',
    summary: 'collect what doctor looks at, for doctor --root on another machine; docs/doctor.md lists it',
    options: [['--out <path>', 'write to this .tar.gz or new directory (default: tdxlab-host.tar.gz)']],
    load: () => import('./verbs/collect.ts'),
  },
  {
    name: 'modules',
    operands: '[diff] [releases...]',
    summary: 'list the TDX module releases known; `modules diff A B` compares two of them',
    options: [],
    load: () => import('./verbs/modules.ts'),
  },
  {
    name: 'measure',
    operands: '[image]',
    summary: 'compute the MRTD of a TD made of a TDVF image such as OVMF.fd, and show its sections',
    options: [
      ['--page-order <order>', 'how the VMM adds and measures pages: one-pass, two-pass or both (default)'],
      ['--expect <mrtd>', 'exit with 0 if one of the orders gives this MRTD, with 1 if none does'],
    ],
    help: `Without an image, or with 'sample', it measures a small one that tdxlab makes.
one-pass: each page is added, then extended (Linux since 6.16). two-pass: all
pages of a section are added, then all extended (Ubuntu's TDX preview with QEMU
8.2). Which one a TD has depends on the host that starts it.`,
    load: () => import('./verbs/measure.ts'),
  },
  {
    name: 'vm',
    operands: '[backend] [host...]',
    summary:
      'build and run an example VM through system calls: plain, sw-protected, tdx, snp, pkvm, or each in turn',
    options: [
      ['--trace', 'show every system call of user space, with its result'],
      ['--image <file>', 'make the TD of this TDVF image instead of the embedded sample'],
      ['--memory <size>', "the guest's memory, such as 512M or 4G (default 128M)"],
      ['--vcpus <number>', 'number of vCPUs (default 1)'],
    ],
    help: `The guest keeps a secret, which the host looks for, shares a page with the host
and takes it back; at the end everything must be given back. Without a host each
runs on a machine that has its technology. What runs in the guest is a script;
the image of a TD is added and measured, and its code is not executed.

${HOST_HELP}`,
    load: () => import('./verbs/vm.ts'),
  },
  {
    name: 'run',
    operands: '<scenario>',
    summary: 'play a scenario, a host and what happens to it in time, and say whether what it expects holds',
    options: [
      SCENARIO_POLICY,
      ['--seed <number>', "instead of the scenario's: random arrivals and faults follow from it"],
      ['--all', 'print every event of a long life, not only what was refused, killed or failed'],
    ],
    help: SCENARIO_HELP,
    load: () => import('./verbs/run.ts'),
  },
  {
    name: 'compare',
    operands: '<scenario>',
    summary:
      'play the same events under every policy of the debate, and print what each comes to in one table',
    options: [
      SCENARIO_POLICY,
      ['--seed <number>', "instead of the scenario's: random arrivals and faults follow from it"],
      ['--svg <file>', 'draw the table as a chart into this file'],
    ],
    help: SCENARIO_HELP,
    load: () => import('./verbs/compare.ts'),
  },
  {
    name: 'explore',
    operands: '<scenario>',
    summary:
      'play a scenario with thousands of seeds, or in every order there is, until something does not hold',
    options: [
      SCENARIO_POLICY,
      ['--seeds <number>', 'how many seeds (default 2000)'],
      ['--first-seed <number>', 'where they begin (default 1)'],
      ['--workers <number>', 'threads (default: one for each processor); what comes out is the same'],
      ['--out <file>', 'write the scenario that repeats what was found to this file'],
      ['--exhaustive', 'visit every interleaving of the events on an abstract host, whatever their times'],
      ['--depth <number>', 'with --exhaustive: at most so many steps'],
    ],
    help: `A scenario is a YAML file, or the name of one that comes with tdxlab (in
scenarios/). The first seed that fails is told with the shortest list of events
that still fails, as a scenario that \`tdxlab run\` plays again.
Exit code 0: nothing was found; 1: an invariant or an expectation does not hold.`,
    load: () => import('./verbs/explore.ts'),
  },
  {
    name: 'replay',
    operands: '<file...>',
    summary: 'replay recorded SEAMCALL sequences (plain or gzip) and compare every register',
    options: [],
    load: () => import('./verbs/replay.ts'),
  },
  {
    name: 'start',
    operands: '',
    summary: 'bring the embedded example host up, tell what it came to, and run a TD on it',
    options: [],
    load: () => import('./verbs/start.ts'),
  },
];
