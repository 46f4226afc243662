create table api_key (
  tenant_id text not null,
  id text not null,
  display_name text not null,
  roles text[] not null,
  secret_hash bytea not null,
  creator text not null,
  created_at timestamptz not null,
  expires_at timestamptz,
  revoked_at timestamptz,
  request_id text,
  primary key (tenant_id, id)
);
create unique index api_key_request_idx on api_key (tenant_id, request_id) where request_id is not null;
create index api_key_time_idx on api_key (tenant_id, created_at desc, id desc);

alter table api_key enable row level security;
alter table api_key force row level security;
create policy tenant on api_key using (tenant_id = nullif(current_setting('app.tenant', true), ''));
