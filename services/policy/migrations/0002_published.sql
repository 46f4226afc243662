-- A bundle's signature: who of the mesh vouches for it. Bundles of before have none.
alter table bundle add column signature bytea not null default '';
alter table bundle add column signing_key text not null default '';

-- What single agents have beside the tenant's bundles; "*" is every agent.
create table bundle_attachment (
  tenant_id text not null,
  agent_name text not null,
  name text not null,
  version text not null,
  profile text not null,
  primary key (tenant_id, agent_name, name),
  foreign key (tenant_id, name, version) references bundle (tenant_id, name, version)
);
alter table bundle_attachment enable row level security;
alter table bundle_attachment force row level security;
create policy tenant on bundle_attachment using (tenant_id = nullif(current_setting('app.tenant', true), ''));
create policy every_tenant on bundle_attachment for select using (current_setting('app.tenant', true) = '*');

-- The number of the last change of what is enforced. A row and not a sequence, so that nobody sees a number whose change
-- is not committed yet. It tells nothing of any tenant.
create table enforced_state (
  one boolean primary key default true check (one),
  revision bigint not null
);
alter table enforced_state enable row level security;
alter table enforced_state force row level security;
create policy everyone on enforced_state using (true) with check (true);
insert into enforced_state (revision) select last_value + 1 from enforced_revision;
