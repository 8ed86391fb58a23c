/** A host at one moment as text. */
import { formatRange, hex } from '../abi/address.ts';
import { formatBytes } from '../abi/format-bytes.ts';
import type { HostInspection, MachineInspection } from '../lab/inspect/inspect-host.ts';
import type { KeyIdInspection } from '../lab/inspect/key-ids.ts';
import type { OwnedPages, PageCount, TdmrPages } from '../lab/inspect/pages.ts';
import type { TdInspection, VcpuInspection } from '../lab/inspect/tds.ts';
import { formatCount } from './format.ts';
import { type Io, style } from './io.ts';
import { printSept } from './print-sept.ts';
import { NO_BREAK, printTable, printWrapped } from './table.ts';

const MRTD_DIGITS = 96;

/** @internal */
export function printInspection(io: Io, inspection: HostInspection): void {
  const { machine, tds, keyIds, pages, tdmrs } = inspection;
  io.out(style(io, 'bold', machine.name));
  printFacts(io, machineFacts(machine));
  printTds(io, tds);
  for (const td of tds) if (td.sept !== undefined) printSept(io, td);
  printKeyIds(io, keyIds);
  printOwners(io, pages);
  printTdmrs(io, tdmrs, inspection.dynamicPamt);
  printClaims(io, machine);
}

/** The one TD that was asked for. @internal */
export function printTdAlone(io: Io, { tds: [td] }: HostInspection): void {
  io.out(style(io, 'bold', `TD ${hex(td!.tdr)}`));
  printFacts(io, tdFacts(td!));
  if (td!.configuration !== null) printMrtd(io, 'MRTD        ', td!.configuration.mrtd);
  printVcpus(io, [td!]);
  if (td!.sept !== undefined) printSept(io, td!);
}

function heading(io: Io, text: string): void {
  io.out();
  io.out(style(io, 'bold', text));
}

function printFacts(io: Io, facts: readonly (readonly [name: string, text: string])[]): void {
  const width = Math.max(...facts.map(([name]) => name.length));
  for (const [name, text] of facts) printWrapped(io, text, `${name.padEnd(width)}  `);
}

function machineFacts(machine: MachineInspection): readonly (readonly [string, string])[] {
  const { module, packages } = machine;
  const dirty = machine.dirtyPages.map((pages, id) => `${formatCount(pages)} on package ${id}`).join(', ');
  return [
    [
      'machine',
      `${count(packages, 'package')}, ${count(machine.lps, 'logical processor')}, ${formatCount(machine.lpsOnline)} online`,
    ],
    ['TDX module', module === null ? 'none loaded' : `${module.version}, ${module.state}`],
    ['TDX', machine.tdxFailure === null ? machine.tdx : `${machine.tdx}: ${machine.tdxFailure}`],
    [
      'so far',
      `${count(machine.seamcalls, 'SEAMCALL')} in ${(machine.virtualNs / 1e9).toFixed(6)} s of virtual time`,
    ],
    [
      'contents',
      `${count(machine.pagesWithContents, 'page')} of memory, ${formatBytes(machine.contentBytes)}`,
    ],
    ['dirty pages', dirty],
  ];
}

function tdFacts(td: TdInspection): readonly (readonly [string, string])[] {
  const { configuration } = td;
  const facts: (readonly [string, string])[] = [
    ['KeyID', String(td.keyId)],
    ['life cycle', td.isFatal ? `${td.lifecycle}, fatal error` : td.lifecycle],
    ['operation', td.opState ?? '-'],
    ['pages', `${td.pages.map(formatPages).join(', ')}: ${formatBytes(td.bytes).replace(' ', NO_BREAK)}`],
  ];
  if (configuration !== null) {
    const { attributes, attributeNames, xfam, maxVcpus, l2Vms } = configuration;
    facts.push(
      ['attributes', [hex(attributes), ...attributeNames].join(' ')],
      ['XFAM', hex(xfam)],
      ['vCPUs', `at most ${maxVcpus}${l2Vms === 0 ? '' : `, each with ${count(l2Vms, 'L2 VM')}`}`],
    );
  }
  if (td.damage !== undefined) facts.push(['damage', td.damage]);
  return facts;
}

function printTds(io: Io, tds: readonly TdInspection[]): void {
  heading(io, 'TDs');
  if (tds.length === 0) {
    io.out('none');
    return;
  }
  printTable(
    io,
    [
      { heading: 'TDR' },
      { heading: 'KeyID', align: 'right' },
      { heading: 'life cycle' },
      { heading: 'operation' },
      { heading: 'memory', align: 'right' },
      { heading: 'attributes' },
    ],
    tds.map(({ tdr, keyId, lifecycle, isFatal, opState, bytes, configuration, damage }) => [
      hex(tdr),
      String(keyId),
      isFatal ? `${lifecycle}, fatal` : lifecycle,
      opState ?? '-',
      formatBytes(bytes),
      damage ?? attributesOf(configuration),
    ]),
  );
  for (const { tdr, configuration } of tds) {
    if (configuration !== null) printMrtd(io, `MRTD of ${hex(tdr)}  `, configuration.mrtd);
  }
  printVcpus(io, tds);
}

/** In one piece where the line has room for it, else in two. */
function printMrtd(io: Io, lead: string, mrtd: string | null): void {
  const half = MRTD_DIGITS / 2;
  const isWide = lead.length + MRTD_DIGITS <= io.columns;
  const text = mrtd === null || isWide ? mrtd : `${mrtd.slice(0, half)} ${mrtd.slice(half)}`;
  printWrapped(io, text ?? 'not closed yet', lead);
}

function attributesOf(configuration: TdInspection['configuration']): string {
  if (configuration === null) return '-';
  const { attributes, attributeNames } = configuration;
  return [hex(attributes), ...attributeNames].join(' ');
}

function printVcpus(io: Io, tds: readonly TdInspection[]): void {
  const rows = tds.flatMap(({ tdr, vcpus }) => vcpus.map((vcpu) => [hex(tdr), ...vcpuCells(vcpu)]));
  if (rows.length === 0) return;
  heading(io, 'vCPUs');
  printTable(
    io,
    [
      { heading: 'TD' },
      { heading: 'vCPU', align: 'right' },
      { heading: 'TDVPR' },
      { heading: 'LP', align: 'right' },
      { heading: 'state' },
    ],
    rows,
  );
}

function vcpuCells({ tdvpr, index, state, lp, isEntered }: VcpuInspection): string[] {
  const stateText = isEntered ? `${state}, entered` : (state ?? '-');
  return [index === null ? '-' : String(index), hex(tdvpr), lp === null ? '-' : String(lp), stateText];
}

function printKeyIds(io: Io, keyIds: readonly KeyIdInspection[]): void {
  if (keyIds.length === 0) return;
  heading(io, 'Private KeyIDs');
  printTable(
    io,
    [
      { heading: 'KeyID', align: 'right' },
      { heading: 'state' },
      { heading: 'owner' },
      { heading: 'caches to write back' },
    ],
    keyIds.map(({ first, last, state, tdr, pendingPackages }) => [
      first === last ? String(first) : `${first}-${last}`,
      state,
      state === 'RESERVED' ? 'TDX module' : tdr === null ? '-' : `TD ${hex(tdr)}`,
      pendingPackages.length === 0 ? '-' : `of package ${pendingPackages.join(', ')}`,
    ]),
  );
}

function printOwners(io: Io, pages: readonly OwnedPages[]): void {
  if (pages.length === 0) return;
  heading(io, 'Pages by owner');
  printTable(
    io,
    [
      { heading: 'owner' },
      { heading: 'type' },
      { heading: '4K', align: 'right' },
      { heading: '2M', align: 'right' },
      { heading: '1G', align: 'right' },
      { heading: 'memory', align: 'right' },
    ],
    pages.map(({ owner, type, pages4k, pages2m, pages1g, bytes }) => [
      owner === null ? 'TDX module' : `TD ${hex(owner)}`,
      type,
      formatCount(pages4k),
      formatCount(pages2m),
      formatCount(pages1g),
      formatBytes(bytes),
    ]),
  );
}

function printTdmrs(io: Io, tdmrs: readonly TdmrPages[], dynamic: boolean): void {
  if (tdmrs.length === 0) return;
  heading(io, dynamic ? 'Page metadata (Dynamic PAMT)' : 'Page metadata');
  printTable(
    io,
    [
      { heading: 'TDMR' },
      { heading: 'initialised', align: 'right' },
      { heading: 'reserved', align: 'right' },
      { heading: 'GiB looked at', align: 'right' },
      { heading: 'pages in use' },
    ],
    tdmrs.map((tdmr) => [
      formatRange(tdmr),
      tdmr.initialisedEnd === tdmr.end ? 'whole' : formatBytes(tdmr.initialisedEnd - tdmr.start),
      formatBytes(tdmr.reservedBytes),
      `${formatCount(tdmr.blocksTouched)} of ${formatCount(tdmr.blocks)}`,
      tdmr.pages.length === 0 ? '-' : tdmr.pages.map(formatPages).join(', '),
    ]),
  );
}

/** `TDCX 6 x 4K`, `REG 512 x 4K + 3 x 2M`. */
function formatPages({ type, pages4k, pages2m, pages1g }: PageCount): string {
  const sizes = [
    `${formatCount(pages4k)} x 4K`,
    `${formatCount(pages2m)} x 2M`,
    `${formatCount(pages1g)} x 1G`,
  ];
  return `${type} ${sizes.filter((size) => !size.startsWith('0 ')).join(' + ')}`;
}

function printClaims(io: Io, { claimed }: MachineInspection): void {
  if (claimed.length === 0) return;
  heading(io, 'Zero-filled memory owned by KeyIDs');
  const byKeyId = [...Map.groupBy(claimed, ({ keyId }) => keyId)].sort(([a], [b]) => a - b);
  printTable(
    io,
    [
      { heading: 'KeyID', align: 'right' },
      { heading: 'ranges', align: 'right' },
      { heading: 'memory', align: 'right' },
      { heading: 'within' },
    ],
    byKeyId.map(([keyId, ranges]) => [
      String(keyId),
      formatCount(ranges.length),
      formatBytes(ranges.reduce((sum, { start, end }) => sum + end - start, 0)),
      formatRange({ start: ranges[0]!.start, end: ranges.at(-1)!.end }),
    ]),
  );
}

function count(number: number, noun: string): string {
  return `${formatCount(number)} ${noun}${number === 1 ? '' : 's'}`;
}
