/** Stages of the TDX module: loaded, initialised, and what that means for memory. */
import { formatBytes } from '../../../abi/format-bytes.ts';
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
  notApplicable,
  pass,
  unknown,
  valueIn,
} from '../finding.ts';
import { KVM_TDX, kvmHasTdx, logIsWhole, logLine, logWithout } from '../signs.ts';
import type { Stage } from '../stage.ts';

const VERSION = '/sys/devices/faux/tdx_host/version';

/** Where most boards look for a module to load. */
const MODULE_IMAGE = '/boot/efi/EFI/TDX/TDX-SEAM.so';

/** Lines of a module that is there and too old for this kernel. */
const TOO_OLD = /clobber bug|clobbers RBP|SEAMCALL \(?(?:0x22|34)\)? failed: 0xc000050500000000/i;

function judgeModule(facts: HostFacts): Finding {
  const absent = logLine(facts, /module (?:is )?not (?:loaded|found|detected)/i);
  if (absent !== undefined) {
    const image = facts.access(MODULE_IMAGE);
    const there =
      image === 'none' ? 'none' : image === 'denied' ? 'not known: this user may not look' : 'there is one';
    return fail('the firmware loaded no TDX module', adviceOn('module not loaded'), [
      absent,
      { where: MODULE_IMAGE, value: there },
    ]);
  }
  const old = logLine(facts, TOO_OLD);
  const version = facts.text(VERSION);
  const identity = logLine(facts, /odule version:? \d|major_version/);
  const looked = [
    ...(version.state === 'read' ? [look(version)] : []),
    ...(identity === undefined ? [] : [identity]),
  ];
  if (old !== undefined) {
    const advice = adviceOnLine(old.value) ?? adviceOn('frame pointer bug');
    return fail('the TDX module is too old for this kernel', advice, [...looked, old]);
  }
  const name = moduleName(facts);
  if (name !== undefined) return pass(`TDX module ${name}`, looked);
  const up = logLine(facts, INITIALISED);
  if (up !== undefined) return pass('a module, whose version this kernel does not show', [up]);
  if (kvmHasTdx(facts)) {
    return pass(
      'a module, of which only KVM tells',
      [look(facts.text(KVM_TDX)), look(version)],
      ['The module tdx_host (modprobe tdx-host, Linux 7.2) or the log of the boot shows its version.'],
    );
  }
  return unknown('whether a module is loaded', howToKnow([facts.log, version]), [
    logWithout(facts, 'the module'),
    look(version),
  ]);
}

/** As a person calls it: `1.5.25`, or `1.5, build 698 of 20240129` before Linux 7. @internal */
export function moduleName(facts: HostFacts): string | undefined {
  const version = valueIn(facts.text(VERSION));
  if (version !== undefined && /^\d+\.\d+\.\d+$/.test(version)) return version;
  const seen = valueIn(facts.log)?.evidence.module;
  if (seen === undefined) return undefined;
  const { major, minor, update, buildDate, buildNumber } = seen;
  if (update !== undefined) return `${major}.${minor}.${String(update).padStart(2, '0')}`;
  return `${major}.${minor}, build ${buildNumber} of ${buildDate}`;
}

const INITIALISED = /(?:TDX[- ])?[Mm]odule initiali[sz]ed/;

/** Lines that say what failed, before the one that only sums it up. */
const FAILURES: readonly RegExp[] = [
  /tdx: (?!.*not loaded).*(?:exhausted|is required|clobber|not supported by the host)/i,
  /SEAMCALL.*failed/,
  /initiali[sz]ation failed/i,
  /Failed to initialize TDX/i,
];

function judgeInitialisation(facts: HostFacts): Finding {
  const up = logLine(facts, INITIALISED);
  const evidence = valueIn(facts.log)?.evidence;
  const looked: Looked[] = up === undefined ? [] : [up];
  if (up !== undefined && evidence?.initialized === true) {
    const pamt = logLine(facts, /allocated for PAMT/);
    const cost = evidence.pamtKb === undefined ? '' : `, ${formatBytes(evidence.pamtKb * 1024)} for PAMT`;
    return pass(`the module is initialised${cost}`, pamt === undefined ? looked : [pamt, ...looked]);
  }
  const lines = FAILURES.flatMap((pattern) => logLine(facts, pattern) ?? []);
  const [first] = lines;
  if (first !== undefined) {
    const known = lines.map(({ value }) => adviceOnLine(value)).find((advice) => advice !== undefined);
    const advice = known ?? adviceOn('KVM goes on without TDX');
    const errno = evidence?.failure?.errno;
    const says = `the module did not initialise${errno === undefined ? '' : ` (${errno})`}`;
    return fail(says, advice, [...new Map(lines.map((line) => [line.value, line])).values()]);
  }
  const version = facts.text(VERSION);
  if (kvmHasTdx(facts)) return pass('the module is initialised: KVM uses it', [look(facts.text(KVM_TDX))]);
  if (version.state === 'read')
    return pass('the module is initialised: it tells its version', [look(version)]);
  const parameter = facts.text(KVM_TDX);
  if (logIsWhole(facts) && !kvmHasTdx(facts))
    return notApplicable(
      'not tried yet: before Linux 7 the kernel initialises the module when kvm_intel asks for it',
      [logWithout(facts, 'an initialisation'), look(parameter)],
    );
  return unknown('whether the module is initialised', howToKnow([facts.log, version]), [
    logWithout(facts, 'an initialisation'),
    look(version),
    look(parameter),
  ]);
}

const MEMORY = '/sys/devices/system/memory';

/** What TDX memory being all the memory at boot means from then on. */
function judgeMemory(facts: HostFacts): Finding {
  const refused = logLine(facts, /memory.*(?:not|isn't) TDX|TDX.*(?:refus|reject).*memory/i);
  const blockSize = facts.parsed(`${MEMORY}/block_size_bytes`, (text) => {
    const bytes = Number.parseInt(text, 16);
    return Number.isSafeInteger(bytes) ? bytes : undefined;
  });
  const policy = facts.text(`${MEMORY}/auto_online_blocks`);
  const offline = facts.paths(`${MEMORY}/memory`).filter((path) => /\/memory\d+\/state$/.test(path)).length;
  const looked = [look(blockSize, (bytes) => formatBytes(bytes)), look(policy)];
  if (offline > 0) looked.push({ where: `${MEMORY}/memory*/state`, value: `${offline} not online` });
  if (refused !== undefined) looked.push(refused);
  const remarks = [
    'Memory that is added from now on is no TDX memory: bringing it online is refused with EPERM (-1).',
    ...(offline > 0
      ? [
          `Of the ${offline} memory blocks that are not online, only those that were at boot can be brought online.`,
        ]
      : []),
    ...(valueIn(policy)?.startsWith('online') === true
      ? [
          'Hot-added memory is brought online by itself here: each block will fail with EPERM and no reason in the log.',
        ]
      : []),
  ];
  return following(pass('TDX memory is all the memory there was at boot', looked, remarks));
}

/** @internal */
export const MODULE_STAGES: readonly Stage[] = [
  { id: 'module', title: 'TDX module', after: ['detection'], judge: judgeModule },
  { id: 'initialisation', title: 'initialisation', after: ['module'], judge: judgeInitialisation },
  { id: 'memory', title: 'memory', after: ['initialisation'], judge: judgeMemory },
];
