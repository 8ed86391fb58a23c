/**
 * Reads the sources of the floors whose state is saved, and fails when a class gains a field, or a file a store of its
 * own, that a saved host would forget.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { SAVED_HOST_FORMAT } from '../../../src/lab/snapshot/container.ts';

const SRC = fileURLToPath(new URL('../../../src', import.meta.url));

/** Classes whose objects a saved host does without, and why. */
const NOT_SAVED: Readonly<Record<string, string>> = {
  CpuException: 'thrown and caught within a call',
  MachineCheck: 'thrown and caught within a call',
  RmpFault: 'thrown and caught within a call',
  SnpGuestContext: 'lasts as long as a VM entry',
  FrameStore: 'PhysicalMemory saves the contents; where they lie is nobody else’s business',
  SharexLock: 'whoever has the lock saves its word',
  MutexLock: 'whoever has the lock saves its word',
  SharexHpLock: 'whoever has the lock saves its word',
  PamtEntry: 'a view of an EntryTable',
  PamtWalk: 'lasts as long as a call',
  TdMeasurement: 'saved as the message it has hashed',
  ControlStructure: 'a view of memory',
  TrustDomain: 'read again from the TDR',
  SecureEpt: 'a view of memory',
  ServiceTdBinding: 'a view of memory',
  Vmcs: 'a view of memory',
  TdParams: 'a view of a buffer, as long as a call',
  Held: 'lasts as long as a call',
  FieldLock: 'lasts as long as a call, or as a vCPU is entered',
  RunningVcpu: 'a host is not saved while a vCPU is entered',
  GlobalLayout: 'follows from the release',
  MemoryNotifiers: 'MemoryHotplug saves how many there are; the kernel registers them again',
  ListWriter: 'lasts as long as a call',
  MsrSample: 'lasts as long as a call',
  TopologyScan: 'lasts as long as a call',
  TdmrChecker: 'lasts as long as a call',
  UndoStack: 'lasts as long as an initialisation',
  Sysfs: 'a view of the kernel',
  MiscResource: 'KVM’s, which is not loaded in a saved host',
  PamtPages: 'KVM’s, which is not loaded in a saved host',
  Devices: 'drivers register again',
  CpuCalls: 'holds hooks, which KVM registers again',
  ObjectCounts: 'a host is not saved while processes run',
  PageRefs: 'a host is not saved while processes run; pages whose memory failed stay allocated',
  AddressSpace: 'a host is not saved while processes run',
  AreaList: 'a host is not saved while processes run',
  DmaDevice: 'a host is not saved while files are open',
  FileMapping: 'a host is not saved while files are open',
  FileTable: 'a host is not saved while processes run',
  Memfd: 'a host is not saved while files are open',
  MemoryArea: 'a host is not saved while processes run',
  OpenFile: 'a host is not saved while files are open',
  PageTable: 'a host is not saved while processes run',
  Process: 'a host is not saved while processes run',
  ReadWriteLock: 'nobody holds one once processes are gone',
  SharedPolicy: 'a host is not saved while files are open',
  SleepLock: 'nobody holds one once processes are gone',
  Task: 'a host is not saved while processes run',
  UserFault: 'thrown and caught within an access',
};

/** Fields of saved classes that are not saved, and why. */
const FIELDS_NOT_SAVED: Readonly<Record<string, string>> = {
  'EntropySource.exhausted': 'fault point',
  'Package.id': 'its place in the list of packages',
  'Package.pconfigOutcome': 'fault point',
  'PackageCache.memory': 'the machine’s',
  'LogicalProcessor.machine': 'the machine itself',
  'LogicalProcessor.index': 'its place in the list of processors',
  'PhysicalMemory.options': 'the machine’s',
  'PhysicalMemory.ownerChanges': 'only tells whether anything changed meanwhile',
  'Seam.enabled': 'follows from the description',
  'Seam.module': 'saveSeamImages',
  'Seam.loader': 'saveSeamImages',
  'Seam.loaderBusy': 'fault point',
  'Seam.fault': 'fault point',
  'Seam.observer': 'looks on',
  'SeamReports.verdict': 'fault point',
  'SeamReports.silent': 'fault point',
  'Machine.guestCode': 'whoever runs guests sets it again',
  'Machine.hypervisor': 'a host with a hypervisor is not saved',
  'Machine.hostAccess': 'set by hardware that is saved',
  'Machine.partialWriteErratum': 'follows from the description',
  'Machine.keyIdStartBit': 'follows from the description',
  'Machine.acpiListeners': 'the kernel listens again',
  'Snp.machine': 'the machine itself',
  'Snp.description': 'the machine’s',
  'SecureProcessor.machine': 'the machine itself',
  'SecureProcessor.snp': 'the machine’s',
  'SecureProcessor.fault': 'fault point',
  'SecureProcessor.observer': 'looks on',
  'EntryTable.epochHalves': 'a view of epochs',
  'PamtBlock.tdmr': 'savePageMetadata',
  'Pamt.memory': 'the machine’s',
  'Pamt.lastRead': 'read again',
  'Pamt.usable': 'found again when asked for',
  'Pamt.blocks': 'savePageMetadata',
  'SeamLoader.machine': 'the machine itself',
  'SeamLoader.rules': 'follow from the description',
  'TdxModule.machine': 'the machine itself',
  'TdxModule.release': 'found by its version',
  'TdxModule.leaves': 'follow from the release',
  'TdxModule.trustDomains': 'found again when asked for',
  'TdxModule.measurements': 'saveSeamImages',
  'TdxModule.running': 'a host is not saved while a vCPU is entered',
  'TdxModule.guestRunner': 'not the module’s: whoever runs guests sets it again',
  'Cpu.lp': 'its place in the list of CPUs',
  'LogRing.clock': 'the machine’s',
  'LogRing.capacity': 'every kernel’s is the same',
  'LogRing.listeners': 'look on',
  'MemoryHotplug.blockSize': 'follows from the description',
  'MemoryHotplug.allocator': 'the kernel’s',
  'MemoryHotplug.log': 'the kernel’s',
  'MemoryHotplug.state': 'the kernel’s',
  'PageAllocator.fault': 'fault point',
  'PageAllocator.onMigrate': 'looks on',
  'NodeZones.fallback': 'made again when asked for',
  'NodeZones.distance': 'follows from the description',
  'TdMemory.context': 'the kernel’s',
  'TdMemory.usable': 'found again when asked for',
  'TdMemory.ranges': 'found again when asked for',
  'TdMemory.try': 'functions',
  'TdxEnabler.context': 'the kernel’s',
  'PamtReservation.allocator': 'the kernel’s',
  'TdxEnabler.running': 'a host is not saved while an initialisation is under way',
  'TdxEnabler.usable': 'found again when asked for',
  'TdxCpuState.log': 'the kernel’s',
  'HostKernel.machine': 'the machine itself',
  'HostKernel.schedule': 'the lab’s',
  'HostKernel.devices': 'drivers register again',
  'HostKernel.openObjects': 'a host is not saved while there are some',
  'HostKernel.pageRefs': 'a host is not saved while processes run',
  'HostKernel.inaccessibleMemfd': 'KVM registers it again',
  'HostKernel.cpuCalls': 'holds hooks, which KVM registers again',
  'HostKernel.inodes': 'no file is left that has a number',
  'HostKernel.notifier': 'a function',
  'HostKernel.memoryUsers': 'a host is not saved while there are some',
  'Balloon.allocator': 'the kernel’s',
};

/** Fields that are saved, and restored by another than their own class. */
const RESTORED_ELSEWHERE: Readonly<Record<string, string>> = {
  'LogicalProcessor.package': 'Machine makes the processor with it',
  'LogicalProcessor.node': 'Machine makes the processor with it',
  'Machine.description': 'loadHost makes the machine of it',
  'Rmp.pages': 'Snp makes the table with it',
  'PamtBlock.base': 'restorePageMetadata makes the block with it',
  'PamtBlock.dynamic': 'restorePageMetadata makes the block with it',
  'MemoryHotplug.notifiers': 'the kernel registers them again',
  'HostKernel.booted': 'the kernel listens to the firmware again',
};

/** State outside of objects that saveSeamImages sees to. */
const STORES = ['pamt.ts: CONTENTS', 'measurement.ts: RUNNING'];

/** Of the names of all saved fields. When it changes, so has the shape of the state: raise SAVED_HOST_FORMAT. */
const FIELDS_DIGEST = '37648bb910bf';

interface SourceFile {
  readonly name: string;
  readonly text: string;
}

interface ClassFacts {
  readonly name: string;
  readonly fields: readonly string[];
  /** Null where the class has no `save`. */
  readonly saved: ReadonlySet<string> | null;
  readonly restored: ReadonlySet<string>;
}

const FILES: readonly SourceFile[] = ['machine', 'module', 'kernel'].flatMap((floor) =>
  readdirSync(join(SRC, floor), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))
    .map((name) => ({ name: basename(name), text: readFileSync(join(SRC, floor, name), 'utf8') })),
);

// The formatter lays every class out alike, members two blanks in, so that lines tell what is what.
const CLASS = /^(?:export )?(?:abstract )?class (\w+)[^\n]*\{\n([\s\S]*?)^\}/gm;
const FIELD = /^ {2}(?:readonly )?#?(\w+)[?!]?(?:: |;| =)/gm;
const STORE = /^(?:export )?(?:let (\w+)|const (\w+)[^\n]*= new WeakMap)/gm;

const CLASSES = FILES.flatMap(({ text }) =>
  [...text.matchAll(CLASS)].map(([, name = '', body = '']) => factsOf(name, body)),
);
const SAVED = CLASSES.filter(({ saved }) => saved !== null);

function factsOf(name: string, body: string): ClassFacts {
  const save = methodOf(body, 'save');
  const restored = methodOf(body, 'static restored');
  // What `restored` gives to the constructor is restored as well.
  const restorers = [restored, restored && methodOf(body, 'constructor'), methodOf(body, '#?restore')];
  return {
    name,
    fields: [...body.matchAll(FIELD)].map(([, field = '']) => field),
    saved: save === undefined ? null : touched(save),
    restored: new Set(restorers.flatMap((text) => [...touched(text ?? '')])),
  };
}

function methodOf(body: string, name: string): string | undefined {
  return new RegExp(`^ {2}${name}\\([\\s\\S]*?^ {2}\\}$`, 'm').exec(body)?.[0];
}

/** Members reached through `this` or another object, the saved state apart; also by taking `this` to pieces. */
function touched(method: string): ReadonlySet<string> {
  const reached = [...method.matchAll(/(?<!\bsaved)[!?]?\.#?([A-Za-z]\w*)/g)].map(([, name = '']) => name);
  const [, pieces = ''] = /\{([^{}]*)\} = this;/.exec(method) ?? [];
  return new Set([...reached, ...pieces.split(',').map((piece) => piece.trim())]);
}

describe('a saved host', () => {
  it('comes of classes that this test finds', () => {
    expect(SAVED.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['Machine', 'PhysicalMemory', 'TdxModule', 'PamtBlock', 'HostKernel', 'Zone']),
    );
  });

  it('knows of every class with fields whether it is saved', () => {
    const unknown = CLASSES.filter(
      ({ name, fields, saved }) => saved === null && fields.length > 0 && NOT_SAVED[name] === undefined,
    );
    expect(unknown.map(({ name }) => `${name}: give it save and restore, or a reason in NOT_SAVED`)).toEqual(
      [],
    );
  });

  it('saves and restores every field of a saved class', () => {
    const forgotten = SAVED.flatMap(({ name, fields, saved, restored }) =>
      fields
        .filter((field) => FIELDS_NOT_SAVED[`${name}.${field}`] === undefined)
        .flatMap((field) => [
          ...(saved!.has(field) ? [] : [`${name}.${field} is not saved`]),
          ...(restored.has(field) || RESTORED_ELSEWHERE[`${name}.${field}`] !== undefined
            ? []
            : [`${name}.${field} is not restored`]),
        ]),
    );
    expect(forgotten).toEqual([]);
  });

  it('has reasons only for classes and fields that are there and are not saved', () => {
    const fields = SAVED.flatMap(({ name, fields }) => fields.map((field) => `${name}.${field}`));
    const classes = CLASSES.filter(({ saved }) => saved === null).map(({ name }) => name);
    const excused = [...Object.keys(FIELDS_NOT_SAVED), ...Object.keys(RESTORED_ELSEWHERE)];
    expect(excused.filter((name) => !fields.includes(name))).toEqual([]);
    expect(Object.keys(NOT_SAVED).filter((name) => !classes.includes(name))).toEqual([]);
  });

  it('leaves out no state that a file keeps outside of objects', () => {
    const stores = FILES.flatMap(({ name, text }) =>
      [...text.matchAll(STORE)].map(([, variable, store]) => `${name}: ${variable ?? store}`),
    );
    expect(stores).toEqual(STORES);
  });

  it('has a new format whenever its shape changes', () => {
    const fields = SAVED.flatMap(({ name, fields }) =>
      fields
        .filter((field) => FIELDS_NOT_SAVED[`${name}.${field}`] === undefined)
        .map((field) => `${name}.${field}`),
    );
    const digest = createHash('sha256').update(fields.sort().join()).digest('hex').slice(0, 12);
    expect(`format ${SAVED_HOST_FORMAT}: ${digest}`).toBe(`format 3: ${FIELDS_DIGEST}`);
  });
});
