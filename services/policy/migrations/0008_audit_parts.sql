-- Stretches of the trail that lie in the object store; the entries themselves are no longer here.
create table audit_part (
  tenant_id text not null,
  first_sequence bigint not null,
  last_sequence bigint not null,
  name text not null,
  digest text not null,
  primary key (tenant_id, first_sequence)
);
alter table audit_part enable row level security;
alter table audit_part force row level security;
create policy tenant on audit_part using (tenant_id = nullif(current_setting('app.tenant', true), ''));
revoke update, delete on audit_part from agentnet_policy;
