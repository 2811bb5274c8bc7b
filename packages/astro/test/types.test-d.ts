import type { SchemaLike, SessionDataOf } from '@coatcheck/astro';
import type { StandardSchemaV1 } from '@standard-schema/spec';
import * as v from 'valibot';
import { expectTypeOf } from 'vitest';

const schemas = {
  cart: v.array(v.object({ sku: v.string() })),
  visits: v.pipe(v.string(), v.transform(Number)),
  theme: v.optional(v.picklist(['light', 'dark'])),
};

// The types of the output, and not of the input.
expectTypeOf<SessionDataOf<typeof schemas>>().toEqualTypeOf<{
  cart: { sku: string }[];
  visits: number;
  theme: 'light' | 'dark' | undefined;
}>();

// The structural type is the one of the specification.
expectTypeOf<StandardSchemaV1<string, number>>().toExtend<SchemaLike>();
expectTypeOf<SessionDataOf<{ a: StandardSchemaV1<string, Date> }>>().toEqualTypeOf<{
  a: StandardSchemaV1.InferOutput<StandardSchemaV1<string, Date>>;
}>();

// Something that is no schema has no values.
expectTypeOf<SessionDataOf<{ a: { parse(): string } }>>().toEqualTypeOf<{ a: never }>();
