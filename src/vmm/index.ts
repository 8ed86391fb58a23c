/** User space: reads TDVF images, lays out a TD's memory, builds its HOB list, predicts MRTD. */
export * from './guid.ts';
export * from './measure-image.ts';
export * from './mrtd.ts';
export * from './sample-image.ts';
export * from './td-hob.ts';
export * from './td-layout.ts';
export * from './tdvf/check-image.ts';
export { readTdvf, type TdvfImage } from './tdvf/image.ts';
export * from './tdvf/section.ts';
export * from './tdvf/write-image.ts';
