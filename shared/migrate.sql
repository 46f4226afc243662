create table if not exists public.schema_migration (
  schema_name text not null,
  name text not null,
  checksum text not null,
  applied_at timestamptz not null default now(),
  primary key (schema_name, name)
);
