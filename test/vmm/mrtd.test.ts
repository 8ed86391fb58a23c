import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../src/abi/address.ts';
import { TDH } from '../../src/abi/leaves.ts';
import { TDCS } from '../../src/module/td/layout.ts';
import { measureImage } from '../../src/vmm/measure-image.ts';
import { mrtdOf, PAGE_ORDERS, type PageOrder } from '../../src/vmm/mrtd.ts';
import { sampleImage } from '../../src/vmm/sample-image.ts';
import { layOutTd, type TdRegion } from '../../src/vmm/td-layout.ts';
import { readTdvf } from '../../src/vmm/tdvf/image.ts';
import { readyTd, SOURCE_PAGE } from '../support/ready-td.ts';
import { imageWith, soundSections } from './arbitrary-image.ts';

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** All contents of a region. */
function contentsOf({ pages, source }: TdRegion): Uint8Array {
  const bytes = new Uint8Array(pages * PAGE_4K);
  bytes.set(source);
  return bytes;
}

/** The message as the ABI describes it, part by part. */
function reference(regions: readonly TdRegion[], order: PageOrder): string {
  const hash = createHash('sha384');
  const record = (name: string, gpa: number): void => {
    const bytes = Buffer.alloc(128);
    bytes.write(name, 'ascii');
    bytes.writeBigUInt64LE(BigInt(gpa), 16);
    hash.update(bytes);
  };
  for (const region of regions) {
    const contents = contentsOf(region);
    const add = (page: number): void => record('MEM.PAGE.ADD', region.gpa + page * PAGE_4K);
    const extend = (page: number): void => {
      for (let at = page * PAGE_4K; region.measure && at < (page + 1) * PAGE_4K; at += 256) {
        record('MR.EXTEND', region.gpa + at);
        hash.update(contents.subarray(at, at + 256));
      }
    };
    const pages = Array.from({ length: region.pages }, (_, page) => page);
    if (order === 'two-pass') {
      pages.forEach(add);
      pages.forEach(extend);
    } else {
      for (const page of pages) {
        add(page);
        extend(page);
      }
    }
  }
  return hash.digest('hex');
}

/** Builds a TD of these regions through the module's leaves and reads its MRTD after MR.FINALIZE. */
function mrtdByModule(regions: readonly TdRegion[], order: PageOrder): string {
  const t = readyTd();
  const must = (leaf: number, gpa: number, operands = {}): void => {
    expect(t.on(leaf, gpa, 0, operands).rax ?? 0n).toBe(0n);
  };
  const tables = new Set<number>();
  const add = (gpa: number, contents: Uint8Array): void => {
    for (let level = 3; level >= 1; level--) {
      const span = PAGE_4K * 512 ** level;
      const start = gpa - (gpa % span);
      if (tables.has(start + level)) continue;
      tables.add(start + level);
      expect(t.status(TDH.memSeptAdd, { rcx: BigInt(start + level), rdx: t.tdr | 1n, r8: t.page() })).toBe(
        0n,
      );
    }
    t.machine.memory.write(SOURCE_PAGE, contents, 0);
    must(TDH.memPageAdd, gpa, { r8: t.page(), r9: BigInt(SOURCE_PAGE) });
  };
  const extend = (gpa: number): void => {
    for (let at = 0; at < PAGE_4K; at += 256) must(TDH.mrExtend, gpa + at);
  };
  for (const region of regions) {
    const contents = contentsOf(region);
    const gpas = Array.from({ length: region.pages }, (_, page) => region.gpa + page * PAGE_4K);
    for (const [page, gpa] of gpas.entries()) {
      add(gpa, contents.subarray(page * PAGE_4K, (page + 1) * PAGE_4K));
      if (region.measure && order === 'one-pass') extend(gpa);
    }
    if (region.measure && order === 'two-pass') gpas.forEach(extend);
  }
  const tdvpr = t.page();
  expect(t.status(TDH.vpCreate, { rcx: tdvpr, rdx: t.tdr })).toBe(0n);
  for (let i = 0; i < 5; i++) expect(t.status(TDH.vpAddcx, { rcx: t.page(), rdx: tdvpr })).toBe(0n);
  expect(t.status(TDH.vpInit, { rcx: tdvpr })).toBe(0n);
  expect(t.status(TDH.mrFinalize, { rcx: t.tdr })).toBe(0n);
  return hexOf(t.td.tdcs.bytes(TDCS.MRTD, 48));
}

describe('mrtdOf', () => {
  it('hashes the message that the ABI describes', () => {
    fc.assert(
      fc.property(soundSections, fc.constantFrom(...PAGE_ORDERS), (sections, order) => {
        const { regions } = layOutTd(imageWith(sections));
        expect(hexOf(mrtdOf(regions, order))).toBe(reference(regions, order));
      }),
    );
  });

  it.each(PAGE_ORDERS)('tells what the module measures when it builds the sample %s', (order) => {
    const { regions } = layOutTd(sampleImage());
    expect(mrtdByModule(regions, order)).toBe(measureImage(sampleImage()).mrtd!.get(order));
  });

  it('tells what the module measures of any regions', () => {
    fc.assert(
      fc.property(soundSections, fc.constantFrom(...PAGE_ORDERS), (sections, order) => {
        const { regions } = layOutTd(imageWith(sections));
        expect(hexOf(mrtdOf(regions, order))).toBe(mrtdByModule(regions, order));
      }),
      { numRuns: 10 },
    );
  });

  it('depends on the order only where a measured region has several pages', () => {
    const source = new Uint8Array(PAGE_4K).fill(1);
    const region = { gpa: 0x10_0000, pages: 1, source, measure: true };
    const [one, two] = PAGE_ORDERS.map((order) => hexOf(mrtdOf([region], order)));
    expect(one).toBe(two);
    const [many, all] = PAGE_ORDERS.map((order) => hexOf(mrtdOf([{ ...region, pages: 2 }], order)));
    expect(many).not.toBe(all);
  });

  it('is the hash of nothing for no regions', () => {
    expect(hexOf(mrtdOf([], 'one-pass'))).toBe(createHash('sha384').digest('hex'));
  });
});

/** Debian 12's firmware, from its package ovmf. */
const OVMF = process.env.TDXLAB_OVMF ?? '/usr/share/ovmf/OVMF.fd';
const OVMF_SHA256 = '7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773';
const bytes = existsSync(OVMF) ? readFileSync(OVMF) : new Uint8Array(0);
const isKnown = createHash('sha256').update(bytes).digest('hex') === OVMF_SHA256;
if (!isKnown) console.log(`${OVMF} is not the OVMF.fd of Debian 12: its tests are skipped`);

describe.skipIf(!isKnown)("Debian 12's OVMF.fd", () => {
  it('has its MRTDs', () => {
    const { mrtd, findings } = measureImage(readTdvf('OVMF.fd', bytes));
    expect(findings).toEqual([]);
    expect(Object.fromEntries(mrtd!)).toEqual({
      'one-pass':
        '4c7206f0f483c524f12c366c711e9049030a8d47c471ee5aa9c4999a08de4057fb887fed0744d5631a212967fb231c47',
      'two-pass':
        'acccbcc870a381adab0d3919d90a7f268ac3b0364771f202ed4bb4e892d045b33db3b32e6924cba830a724eed443f7e1',
    });
  });

  it.each(PAGE_ORDERS)('gives a TD that MRTD when the module builds it %s', (order) => {
    const image = readTdvf('OVMF.fd', bytes);
    expect(mrtdByModule(layOutTd(image).regions, order)).toBe(measureImage(image).mrtd!.get(order));
  });

  it('has its sections', () => {
    const { sections, descriptorOffset, foundBy } = readTdvf('OVMF.fd', bytes);
    expect({ descriptorOffset, foundBy }).toEqual({ descriptorOffset: 0x1f_f7c0, foundBy: 'guid-table' });
    expect(sections.map(({ type, address, memoryBytes }) => [type, address, memoryBytes])).toEqual([
      [0, 0xffe2_0000, 0x1e_0000],
      [1, 0xffe0_0000, 0x2_0000],
      [3, 0x81_0000, 0x1_0000],
      [3, 0x80_b000, 0x2000],
      [2, 0x80_9000, 0x2000],
      [3, 0x80_0000, 0x6000],
    ]);
  });
});
