-- What is so, for how long, and since when the mesh knows. Rows are only ever closed, never changed otherwise.
create table fact (
  tenant_id text not null,
  id text not null,
  place bigint generated always as identity,
  subject text not null,
  relation text not null,
  object text not null,
  several boolean not null,
  valid_from timestamptz not null,
  valid_to timestamptz,
  recorded_at timestamptz not null,
  ended_at timestamptz,
  superseded_by text not null,
  confidence double precision not null,
  session_id text not null,
  turn_id text not null,
  agent_name text not null,
  policy_version text not null,
  primary key (tenant_id, id)
);
create index fact_subject_idx on fact (tenant_id, subject, relation, valid_from);
create index fact_object_idx on fact (tenant_id, object);
create index fact_place_idx on fact (tenant_id, place);
alter table fact enable row level security;
alter table fact force row level security;
create policy tenant on fact using (tenant_id = nullif(current_setting('app.tenant', true), ''));
