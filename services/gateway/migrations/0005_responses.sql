create table response (
  tenant_id text not null,
  id text collate "C" not null,
  previous_id text not null,
  work_id text not null,
  background boolean not null,
  created_at timestamptz not null,
  asked bytea not null,
  answer bytea,
  primary key (tenant_id, id)
);
create index response_created_idx on response (tenant_id, created_at);

alter table response enable row level security;
alter table response force row level security;
create policy tenant on response using (tenant_id = nullif(current_setting('app.tenant', true), ''));
