create table prompt_version (
  tenant_id text not null,
  name text collate "C" not null,
  digest text not null,
  number int not null,
  content text not null,  -- the canonical text the digest is of, byte for byte
  comment text not null,
  author text not null,
  created_at timestamptz not null,
  primary key (tenant_id, name, digest),
  unique (tenant_id, name, number),
  check (digest = encode(sha256(convert_to(content, 'UTF8')), 'hex'))
);

create table prompt_label (
  tenant_id text not null,
  name text collate "C" not null,
  label text not null,
  place int not null,
  digest text not null,
  weight int not null check (weight > 0),
  primary key (tenant_id, name, label, digest),
  foreign key (tenant_id, name, digest) references prompt_version (tenant_id, name, digest)
);
create index prompt_label_version_idx on prompt_label (tenant_id, name, digest);

create table prompt_generation (
  tenant_id text not null,
  generation_id text collate "C" not null,
  name text collate "C" not null,
  digest text not null,
  label text not null,
  created_at timestamptz not null,
  primary key (tenant_id, generation_id),
  foreign key (tenant_id, name, digest) references prompt_version (tenant_id, name, digest)
);
create index prompt_generation_time_idx on prompt_generation (tenant_id, name, created_at, generation_id);

do $$
declare
  name text;
begin
  foreach name in array array['prompt_version', 'prompt_label', 'prompt_generation'] loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
  end loop;
  -- Versions and ties are read and added: without a policy for it nobody updates or deletes one.
  foreach name in array array['prompt_version', 'prompt_generation'] loop
    execute format(
      'create policy tenant_read on %I for select using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))',
      name);
    execute format(
      'create policy tenant_add on %I for insert with check (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))',
      name);
  end loop;
end $$;
create policy tenant on prompt_label using (tenant_id = nullif(current_setting('app.tenant', true), ''));
