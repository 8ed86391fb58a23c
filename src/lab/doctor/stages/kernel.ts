/** Stages of the kernel: how it is built and started, and whether it found TDX. */
import type { HostFacts } from '../../../survey/live/host-facts.ts';
import {
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
import { KVM_TDX, logIsWhole, logLine, logWithout, lookAtFlag, platformFlag } from '../signs.ts';
import type { Stage } from '../stage.ts';

/** Options without which the kernel has no TDX host, and without which KVM makes no TDs. */
const HOST_OPTION = 'INTEL_TDX_HOST';
const KVM_OPTION = 'KVM_INTEL_TDX';

/** What the host option depends on, as Kconfig has it. */
const DEPENDENCIES = ['KVM_INTEL', 'X86_X2APIC', 'CONTIG_ALLOC', 'X86_MCE'];

/** First releases of Linux itself with the two options; vendors have them earlier. */
const FIRST_RELEASES = 'Linux has TDX host support since 6.8, and KVM makes TDs since 6.16.';

function judgeKernel(facts: HostFacts): Finding {
  const release = facts.text('/proc/sys/kernel/osrelease');
  const name = `Linux ${valueIn(release) ?? ''}`.trim();
  const config = valueIn(facts.config);
  if (config !== undefined) {
    const looked = [HOST_OPTION, KVM_OPTION].map((option) =>
      look(facts.config, (options) => `CONFIG_${option}=${options.get(option) ?? 'none'}`),
    );
    for (const option of [HOST_OPTION, KVM_OPTION]) {
      if (config.get(option) === 'y') continue;
      // Vendors' kernels before 6.16 have TDX in KVM without an option of its own.
      if (option === KVM_OPTION && facts.text(KVM_TDX).state === 'read') continue;
      const off = DEPENDENCIES.filter((needed) => (config.get(needed) ?? 'n') === 'n');
      const needs =
        off.length === 0 ? '' : ` It needs ${off.map((needed) => `CONFIG_${needed}`).join(', ')} as well.`;
      const cause = `The kernel ${name} is built without CONFIG_${option}. ${FIRST_RELEASES}`;
      const remedy = `Boot a kernel that is built with CONFIG_${option}=y.${needs}`;
      return fail(`built without CONFIG_${option}`, { cause, remedy }, looked);
    }
    return pass(`${name} is built for TDX hosts`, looked);
  }
  const parameter = facts.text(KVM_TDX);
  const looked = [look(release), look(facts.config), lookAtFlag(facts, 'tdx_host_platform'), look(parameter)];
  const signs = platformFlag(facts) || valueIn(facts.log)?.evidence.keyIds !== undefined;
  if (parameter.state === 'read' || signs) return pass(`${name} shows signs of TDX host support`, looked);
  return unknown('whether the kernel is built for TDX hosts', howToKnow([facts.config]), looked);
}

/** Options that leave processors down or take features away, and what to do about each. */
const HARMFUL: readonly (readonly [option: RegExp, advice: { cause: string; remedy: string }])[] = [
  [
    /^(?:nosmp|maxcpus=|nr_cpus=)/,
    {
      cause:
        'The module refuses its configuration until every processor that the BIOS enabled has been up once.',
      remedy: 'Boot without OPTION, or turn the processors off in the BIOS instead.',
    },
  ],
  [
    /^use_tdx=off/,
    { cause: 'The option tells the kernel to leave TDX alone.', remedy: 'Boot without OPTION.' },
  ],
  [/^(?:noxsave|clearcpuid=)/, adviceOn('CPU feature missing')],
];

function judgeCommandLine(facts: HostFacts): Finding {
  const options = valueIn(facts.options) ?? optionsInLog(facts);
  const looked = [look(facts.options, (words) => words.join(' ') || 'no option that concerns TDX')];
  if (valueIn(facts.options) === undefined && options !== undefined)
    looked.push({ where: facts.log.source, value: options.join(' ') || 'no option that concerns TDX' });
  const evidence = valueIn(facts.log)?.evidence;
  // A kernel whose module came up has been past every one of these.
  const cameUp = evidence?.initialized === true;
  for (const [pattern, { cause, remedy }] of HARMFUL) {
    const option = options?.find((word) => pattern.test(word));
    if (option === undefined || cameUp || leavesNobodyOut(facts, option)) continue;
    const advice = { cause, remedy: remedy.replace('OPTION', option) };
    return fail(`${option} keeps TDX from initialising`, advice, looked);
  }
  const hibernation = hibernationSigns(facts, options);
  looked.push(...hibernation.looked);
  if (hibernation.possible === false) return pass('hibernation is off', looked, remarksOn(options ?? []));
  if (hibernation.possible === true)
    return fail('the kernel could hibernate', adviceOn('hibernation'), looked);
  return unknown('whether the kernel could hibernate', howToKnow([facts.options, facts.config]), looked);
}

/** `maxcpus=` and `nr_cpus=` with as many as there are change nothing. */
function leavesNobodyOut(facts: HostFacts, option: string): boolean {
  const limit = /^(?:maxcpus|nr_cpus)=(\d+)$/.exec(option)?.[1];
  const present = valueIn(facts.listedCpus) ?? valueIn(facts.cpuList('/sys/devices/system/cpu/present'));
  return limit !== undefined && present !== undefined && Number(limit) >= present.length;
}

function optionsInLog(facts: HostFacts): readonly string[] | undefined {
  return valueIn(facts.log)
    ?.evidence.commandLine?.split(/\s+/)
    .filter((word) => word !== '');
}

/** Whether the kernel could hibernate: undefined where nothing tells. */
function hibernationSigns(
  facts: HostFacts,
  options: readonly string[] | undefined,
): { readonly possible?: boolean; readonly looked: readonly Looked[] } {
  if (options?.some((word) => word === 'nohibernate' || word === 'hibernate=no'))
    return { possible: false, looked: [] };
  const config = look(facts.config, (set) => `CONFIG_HIBERNATION=${set.get('HIBERNATION') ?? 'none'}`);
  if ((valueIn(facts.config)?.get('HIBERNATION') ?? 'y') === 'n')
    return { possible: false, looked: [config] };
  if (platformFlag(facts)) return { possible: false, looked: [lookAtFlag(facts, 'tdx_host_platform')] };
  const disk = facts.text('/sys/power/disk');
  const modes = valueIn(disk);
  if (modes !== undefined) return { possible: !modes.includes('[disabled]'), looked: [look(disk)] };
  const seen = valueIn(facts.log)?.evidence;
  const decided = seen?.initialized === true || seen?.module !== undefined ? true : seen?.hibernationDisabled;
  const line = logLine(facts, /hibernation support|ACPI S3|odule version|major_version|odule initialized/i);
  if (decided !== undefined) return { possible: !decided, looked: line === undefined ? [] : [line] };
  return { looked: [look(disk), config] };
}

function remarksOn(options: readonly string[]): readonly string[] {
  const maps = options.filter((word) => /^(?:memmap|mem|efi_fake_mem)=/.test(word));
  if (maps.length === 0) return [];
  return [
    `${maps.join(' ')} changes the memory map: what it adds is in no CMR, and what it takes away no TD can use.`,
  ];
}

/** Lines with which detection ends without TDX, by the kinds that are explained. */
const DETECTION_FAILURES =
  /too few private KeyID|hibernation (?:support )?(?:is )?enabled|memory[_ ]notifier/i;

function judgeDetection(facts: HostFacts): Finding {
  const failure = logLine(facts, DETECTION_FAILURES);
  if (failure !== undefined) {
    const advice = adviceOnLine(failure.value) ?? adviceOn('platform not supported');
    return fail('the kernel found TDX and left it off', advice, [failure]);
  }
  const line = logLine(facts, /KeyID range|private KeyID/);
  const flag = lookAtFlag(facts, 'tdx_host_platform');
  if (line !== undefined) return pass('the kernel found TDX', [line, flag]);
  if (platformFlag(facts)) return pass('the kernel found TDX', [flag]);
  const looked = [flag, logWithout(facts, 'private KeyIDs')];
  if (logIsWhole(facts))
    return following(fail('the kernel did not find TDX', adviceOn('platform not supported'), looked));
  return unknown('whether the kernel found TDX', howToKnow([facts.log]), looked);
}

/** @internal */
export const KERNEL_STAGES: readonly Stage[] = [
  { id: 'kernel', title: 'kernel', after: [], judge: judgeKernel },
  { id: 'command-line', title: 'command line', after: [], judge: judgeCommandLine },
  {
    id: 'detection',
    title: 'detection',
    after: ['bios', 'kernel', 'command-line'],
    judge: judgeDetection,
  },
];
