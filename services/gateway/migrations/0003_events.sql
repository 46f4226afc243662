create table event_counter (
  tenant_id text primary key,
  last_sequence bigint not null
);

create table event (
  tenant_id text not null,
  sequence bigint not null,
  id text not null,
  name text not null,
  occurred_at timestamptz not null,
  source text not null,
  subject text not null,
  session_id text not null,
  agent text not null,
  data jsonb not null,
  primary key (tenant_id, sequence)
);
create unique index event_id_idx on event (tenant_id, id);
create index event_session_idx on event (tenant_id, session_id, sequence) where session_id <> '';
revoke update, delete on event from agentnet_gateway;

create table webhook (
  tenant_id text not null,
  id text not null,
  url text not null,
  display_name text not null,
  event_names text[] not null,
  format text not null,
  sealed_secret bytea not null,
  enabled boolean not null,
  created_at timestamptz not null,
  primary key (tenant_id, id)
);

create table delivery (
  tenant_id text not null,
  id text not null,
  webhook_id text not null,
  event_sequence bigint not null,
  event_name text not null,
  status text not null,
  attempts integer not null,
  last_code integer not null,
  last_error text not null,
  next_attempt_at timestamptz,
  created_at timestamptz not null,
  primary key (tenant_id, id),
  foreign key (tenant_id, webhook_id) references webhook (tenant_id, id) on delete cascade
);
create index delivery_webhook_idx on delivery (tenant_id, webhook_id, created_at desc, id desc);

-- What is due, for workers that serve all tenants. It holds ids and times and nothing of any tenant's content.
create table delivery_queue (
  tenant_id text not null,
  delivery_id text not null,
  webhook_id text not null,
  due_at timestamptz not null,
  primary key (tenant_id, delivery_id)
);
create index delivery_queue_due_idx on delivery_queue (due_at);

do $$
declare
  name text;
begin
  foreach name in array array['event_counter', 'event', 'webhook', 'delivery'] loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format(
      'create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
end $$;
alter table delivery_queue enable row level security;
alter table delivery_queue force row level security;
create policy worker on delivery_queue to agentnet_gateway using (true);
