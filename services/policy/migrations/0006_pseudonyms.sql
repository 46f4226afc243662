-- What pseudonyms stand for, sealed.
create table pseudonym (
  tenant_id text not null,
  name text not null,
  sealed bytea not null,
  created_at timestamptz not null default now(),
  primary key (tenant_id, name)
);
alter table pseudonym enable row level security;
alter table pseudonym force row level security;
create policy tenant on pseudonym using (tenant_id = nullif(current_setting('app.tenant', true), ''));
revoke update on pseudonym from agentnet_policy;
