create table a2a_task (
  tenant_id text not null,
  id text collate "C" not null,
  context_id text not null,
  agent text not null,
  work_id text not null,
  state integer not null,
  updated_at timestamptz not null,
  task bytea not null,
  primary key (tenant_id, id)
);
create index a2a_task_updated_idx on a2a_task (tenant_id, updated_at desc, id desc);
create index a2a_task_context_idx on a2a_task (tenant_id, context_id, updated_at desc);

create table a2a_address (
  tenant_id text not null,
  task_id text collate "C" not null,
  id text not null,
  config bytea not null,
  primary key (tenant_id, task_id, id),
  foreign key (tenant_id, task_id) references a2a_task (tenant_id, id) on delete cascade
);

do $$
declare
  name text;
begin
  foreach name in array array['a2a_task', 'a2a_address'] loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format(
      'create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
end $$;
